"""Bring files to the disk, so that they survive a power failure."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# fsync calls in parallel wait for the disk at the same time instead of one after
# another.
THREADS = 8
# From this many files on, one syncfs call is faster than an fsync call for each file,
# although it also waits for the data of other processes. On ext4, 1,000 files of 10 KiB
# take 0.04 s instead of 0.2 s.
MANY = 64
# syncfs is used only for these file systems, which are those of local disks. On a
# network file system, syncfs may return before the data is on the server's disk.
LOCAL = frozenset([b"btrfs", b"ext4", b"f2fs", b"overlay", b"tmpfs", b"xfs"])
MOUNTS = Path("/proc/self/mountinfo")
# syncfs reports write errors since this version of Linux.
REPORTS_ERRORS = (5, 8)


def sync_files(folder: int, names: Sequence[bytes]) -> None:
    """Bring the files with these names in an open folder to the disk."""
    if sync_file_system(folder, len(names)):
        return

    def sync(some: Sequence[bytes]) -> None:
        for name in some:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(sync, (names[at::THREADS] for at in range(THREADS))):
            pass


def sync_file_system(folder: int, count: int) -> bool:
    """
    Bring the whole file system of a folder to the disk with one call.

    Return False without doing anything if the system cannot do that reliably, or if
    *count*, the number of files and folders, is below `MANY`. In both cases the caller
    must call fsync for each file or folder instead.
    """
    if count < MANY or sys.platform != "linux" or not _is_local(folder):
        return False
    release = re.match(r"(\d+)\.(\d+)", platform.release())
    if release is None or (int(release[1]), int(release[2])) < REPORTS_ERRORS:
        return False
    # Imported here, because few commands need it.
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "syncfs"):
        return False
    if libc.syncfs(folder):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return True


def _is_local(folder: int) -> bool:
    """Return whether syncfs is as reliable as fsync on the file system of a folder."""
    device = os.fstat(folder).st_dev
    number = b"%d:%d" % (os.major(device), os.minor(device))
    try:
        mounts = [line.split() for line in MOUNTS.read_bytes().splitlines()]
    except OSError:
        return False
    kinds = {mount[mount.index(b"-") + 1] for mount in mounts if mount[2] == number}
    return bool(kinds) and kinds <= LOCAL
