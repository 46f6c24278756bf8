"""Have files on the disk, so that a power cut does not take them back."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# Several at a time share the disk's waits.
AT_ONCE = 8
# From so many on, one call for the whole disk is the shorter one, although it
# waits for what others have written there, too.
MANY = 64
# Disks of this machine: of a far one the kernel knows only that it was told.
LOCAL = frozenset([b"btrfs", b"ext4", b"f2fs", b"overlay", b"tmpfs", b"xfs"])
MOUNTS = Path("/proc/self/mountinfo")
# Since this Linux the call tells of what could not be written.
TELLING = (5, 8)


def settle(folder: int, names: Sequence[bytes]) -> None:
    """Have these files in an open folder on the disk."""
    if settle_disk(folder, len(names)):
        return

    def sync(some: Sequence[bytes]) -> None:
        for name in some:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in pool.map(sync, (names[at::AT_ONCE] for at in range(AT_ONCE))):
            pass


def settle_disk(folder: int, count: int) -> bool:
    """
    Have the whole disk that a folder is on written, where one call can do that.

    Return False, and do nothing, if it cannot, or if *count* files and folders
    are not worth it: then each of them has to be brought to the disk by itself.
    """
    if count < MANY or sys.platform != "linux" or not _local(folder):
        return False
    release = re.match(r"(\d+)\.(\d+)", platform.release())
    if release is None or (int(release[1]), int(release[2])) < TELLING:
        return False
    # Here and not at the top: hardly any command needs it.
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "syncfs"):
        return False
    if libc.syncfs(folder):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return True


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _local(folder: int) -> bool:
    """Tell whether it is on a disk for which one call means all that fsync does."""
    device = os.fstat(folder).st_dev
    number = b"%d:%d" % (os.major(device), os.minor(device))
    try:
        mounts = [line.split() for line in MOUNTS.read_bytes().splitlines()]
    except OSError:
        return False
    kinds = {mount[mount.index(b"-") + 1] for mount in mounts if mount[2] == number}
    return bool(kinds) and kinds <= LOCAL
