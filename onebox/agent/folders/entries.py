"""
Open and change the entries of folders, without following links.

An entry is given by the descriptor of a folder and a path below it. So a path may be
longer than the system's calls take, and a link in the place of the folder is not used.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import BinaryIO, Iterator, List, Optional

# A system call takes a path of at most 4,095 bytes. A longer one is opened in parts.
LONGEST_PATH = 3000
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


def open_folder(name: str, above: Optional[int] = None) -> int:
    """
    Return a descriptor of a folder. Raises NotADirectoryError if it is a link.

    Args:
        name: Its path below the folder *above*; its path if that is None.
    """
    fd = above
    try:
        for part in _parts(name):
            upper, fd = fd, os.open(part, _FOLDER, dir_fd=fd)
            if upper != above and upper is not None:
                os.close(upper)
    except BaseException:
        if fd != above and fd is not None:
            os.close(fd)
        raise
    assert fd is not None
    return fd


@contextlib.contextmanager
def opened(name: str, above: Optional[int] = None) -> Iterator[int]:
    """Open a folder like `open_folder`, and close it after the block."""
    fd = open_folder(name, above)
    try:
        yield fd
    finally:
        os.close(fd)


def open_file(name: str, folder: int) -> BinaryIO:
    """Open a file, but no link, for reading."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.fdopen(os.open(name, flags, dir_fd=folder), "rb", 0)


def set_mode(name: str, mode: int, above: Optional[int] = None) -> None:
    """Set the mode of a file or folder. Raises OSError if it is a link."""
    fd = os.open(name, _PATH, dir_fd=above)
    try:
        if stat.S_ISLNK(os.fstat(fd).st_mode):
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        # The path of the descriptor leads to the entry itself, even if a link takes
        # its place meanwhile.
        os.chmod("/proc/self/fd/%d" % fd, mode)
    except OSError as error:
        raise OSError(error.errno, error.strerror, name) from error
    finally:
        os.close(fd)


@contextlib.contextmanager
def named(path: str) -> Iterator[None]:
    """Let errors of the system that the block raises name *path*."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, path) from error


def _parts(path: str) -> List[str]:
    """Return a path as parts that a system call takes."""
    if len(os.fsencode(path)) <= LONGEST_PATH:
        return [path or "."]
    found, part = [], ""
    for name in path.split(os.sep):
        longer = part + os.sep + name if part else name
        if part and len(os.fsencode(longer)) > LONGEST_PATH:
            found.append(part)
            longer = name
        part = longer
    return [*found, part]
