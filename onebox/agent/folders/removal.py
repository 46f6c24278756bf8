"""
Remove files and folders on a cluster, also read-only folders.

A job can nest folders so deeply that their paths are longer than the system's calls
take. So folders are opened below each other, and those that are nested too deeply are
moved up before they are emptied.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import Iterator, Optional

from .entries import named, open_folder, set_mode

# A folder is listed again at most this often, because other commands may add to it.
TRIES = 100
# So many folders are open at once. What is below them is moved up.
LEVELS = 24


def remove(path: str) -> None:
    """
    Remove a file, a link, or a folder with all that is in it.

    Folders of this user are removed whatever their modes are; Go's module cache is
    read-only, for example. Links are removed and never followed.

    Raises:
        OSError: Something is left; the error names *path*.
    """
    with named(path), contextlib.suppress(FileNotFoundError):
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            os.unlink(path)
            return
        for _ in range(TRIES):
            with _writable(path) as top:
                _empty(top, top, LEVELS)
            if _remove_empty(path):
                return
        raise _not_empty()


def permit(folder: str) -> None:
    """Give this user all permissions for a folder. Raises OSError if it is a link."""
    set_mode(folder, 0o700)


def _empty(top: int, folder: int, levels: int) -> None:
    """
    Remove all that is in an open folder.

    Args:
        top: The open folder to which folders that are more than *levels* below this
            one are moved.

    Raises:
        OSError: Something is left, for example because others add to the folder.
    """
    for _ in range(TRIES):
        with os.scandir(folder) as found:
            entries = list(found)
        if not entries:
            return
        for entry in entries:
            # Another command may remove or move the same entries.
            with contextlib.suppress(FileNotFoundError):
                if entry.is_dir(follow_symlinks=False):
                    _remove_folder(top, folder, entry.name, levels)
                else:
                    os.unlink(entry.name, dir_fd=folder)
    raise _not_empty()


def _remove_folder(top: int, above: int, name: str, levels: int) -> None:
    """Remove the folder *name* in the open folder *above*, or move it to *top*."""
    with _writable(name, above) as folder:
        if levels:
            _empty(top, folder, levels - 1)
        elif os.listdir(folder):
            moved = ".deep-" + os.urandom(12).hex()
            os.rename(name, moved, src_dir_fd=above, dst_dir_fd=top)
            return
    # If it is not empty, it is found again.
    _remove_empty(name, above)


def _remove_empty(name: str, above: Optional[int] = None) -> bool:
    """Remove a folder, and return whether it was empty."""
    try:
        os.rmdir(name, dir_fd=above)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


def _not_empty() -> OSError:
    return OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))


@contextlib.contextmanager
def _writable(name: str, above: Optional[int] = None) -> Iterator[int]:
    """Open a folder whose entries are to be removed, whatever its mode is."""
    try:
        folder = open_folder(name, above)
    except PermissionError:
        set_mode(name, 0o700, above)
        folder = open_folder(name, above)
    try:
        mode = stat.S_IMODE(os.fstat(folder).st_mode)
        if mode & 0o700 != 0o700:
            os.fchmod(folder, 0o700)
        yield folder
    finally:
        os.close(folder)
