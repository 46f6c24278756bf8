"""Copy a downloaded file into a folder on another disk, to which it cannot be moved."""

from __future__ import annotations

import os
import secrets
import shutil
import stat

from onebox.agent.files.folder_writer import remove


def copy_into(folder: int, source: int, name: bytes) -> bytes:
    """
    Copy a file into an open folder, with its mode and times; return the copy's name.

    The name is new in the folder, and random, so that it is that of no other output.
    When this returns, the contents are safely on the disk.

    Args:
        source: The open folder of the file; *name* is its name there.

    Raises:
        OSError: The file cannot be copied. No copy is left.
    """
    copy = b".onebox-%s" % secrets.token_hex(8).encode()
    flags = os.O_NOFOLLOW | os.O_CLOEXEC
    made = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        with (
            os.fdopen(os.open(name, os.O_RDONLY | flags, dir_fd=source), "rb") as old,
            os.fdopen(os.open(copy, made | flags, 0o600, dir_fd=folder), "wb") as new,
        ):
            shutil.copyfileobj(old, new, 1 << 20)
            new.flush()
            st = os.fstat(old.fileno())
            os.fchmod(new.fileno(), stat.S_IMODE(st.st_mode))
            os.utime(new.fileno(), ns=(st.st_mtime_ns, st.st_mtime_ns))
            os.fsync(new.fileno())
    except BaseException:
        remove(folder, copy)
        raise
    return copy
