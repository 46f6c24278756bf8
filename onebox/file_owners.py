"""Tell files that this user, or root, has written from those of other users."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path


def is_foreign(path: Path) -> bool:
    """
    Return whether a path, or the file that it leads to, belongs to another user.

    Root does not count as another user. The result is False if the path does not exist.
    """
    owners: set[int] = set()
    with contextlib.suppress(OSError):
        owners.add(path.lstat().st_uid)
        owners.add(path.stat().st_uid)
    return not owners <= {0, os.geteuid()}


def is_open_to_all(folder: Path) -> bool:
    """Return whether every user can create files in a folder, as in /tmp."""
    try:
        return bool(folder.stat().st_mode & stat.S_IWOTH)
    except OSError:
        return True


def read_own(path: Path, limit: int) -> bytes | None:
    """
    Return the content of a regular file of this user or of root.

    Return None for any other path, such as a link, a pipe, a device, a file of another
    user, or a file of more than *limit* bytes. The call never waits for a writer.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    with os.fdopen(fd, "rb") as stream:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_uid not in (0, os.geteuid()):
            return None
        data = stream.read(limit + 1)
    return data if len(data) <= limit else None
