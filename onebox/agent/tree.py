"""
Put things into a folder, and never through a link out of it.

Every step from the folder down is opened by itself, without following links, so
a name that the other end made up cannot reach anything else.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import Callable, Dict, Optional, Tuple

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Open directories are kept for the next file in them, up to so many.
KEPT = 64
Clear = Callable[[int, bytes, bytes], None]


class Tree:
    """
    A folder that is being filled.

    *clear* is called with a directory, a name in it and the whole path, to get
    something out of the way: by default it is removed.
    """

    def __init__(self, base: bytes, clear: Optional[Clear] = None) -> None:
        self.base = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._clear = clear or (lambda folder, name, path: remove(folder, name))
        self._open: Dict[bytes, int] = {}

    def folder(self, path: bytes, *, make: bool = True) -> int:
        """
        Open the folder *path*; make it, and those above it, if need be.

        The descriptor is good until the next call.

        Raises:
            FileNotFoundError: It is not there, and *make* is not set.
        """
        if not path:
            return self.base
        fd = self._open.get(path)
        if fd is None:
            above, _, name = path.rpartition(b"/")
            holder = self.folder(above, make=make)
            fd = self._enter(holder, name, path, make)
            if len(self._open) >= KEPT:
                self.forget()
            self._open[path] = fd
        return fd

    def place(self, path: bytes, source: int, name: bytes) -> None:
        """Move *name* from the directory *source* to its final place, at once."""
        folder, final = self.parent(path)
        try:
            os.rename(name, final, src_dir_fd=source, dst_dir_fd=folder)
        except OSError as error:
            if error.errno not in (errno.EISDIR, errno.ENOTEMPTY, errno.EEXIST):
                raise
            self.forget()
            folder, final = self.parent(path)
            self._clear(folder, final, path)
            os.rename(name, final, src_dir_fd=source, dst_dir_fd=folder)

    def link(self, path: bytes, target: bytes, source: int) -> None:
        """Make a link, or turn what is there into one."""
        name = b"link-%d" % os.getpid()
        remove(source, name)
        os.symlink(target, name, dir_fd=source)
        self.place(path, source, name)

    def chmod(self, path: bytes, mode: int) -> None:
        """Set the mode of a file or directory, never of what a link leads to."""
        folder, name = self.parent(path, make=False)
        if not stat.S_ISLNK(self.stat(path).st_mode):
            os.chmod(name, mode, dir_fd=folder)

    def stat(self, path: bytes) -> os.stat_result:
        """Return the state of what is there, of a link itself. Raises OSError."""
        folder, name = self.parent(path, make=False)
        return os.stat(name, dir_fd=folder, follow_symlinks=False)

    def remove(self, path: bytes) -> None:
        """Remove a file, link or empty folder, and the folders that it empties."""
        try:
            folder, name = self.parent(path, make=False)
            if stat.S_ISDIR(self.stat(path).st_mode):
                os.rmdir(name, dir_fd=folder)
            else:
                os.unlink(name, dir_fd=folder)
            while b"/" in path:
                self.forget()
                path = path.rpartition(b"/")[0]
                folder, name = self.parent(path, make=False)
                os.rmdir(name, dir_fd=folder)
        except OSError as error:
            gone = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
            full = (errno.ENOTEMPTY, errno.EEXIST)
            if error.errno not in gone + full:
                raise

    def parent(self, path: bytes, *, make: bool = True) -> Tuple[int, bytes]:
        """Return the open folder that holds *path*, and the name in it."""
        above, _, name = path.rpartition(b"/")
        return self.folder(above, make=make), name

    def forget(self) -> None:
        """Close all directories but the base."""
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()

    def close(self) -> None:
        """Close everything."""
        self.forget()
        os.close(self.base)

    def _enter(self, holder: int, name: bytes, path: bytes, make: bool) -> int:
        try:
            return os.open(name, DIRECTORY, dir_fd=holder)
        except FileNotFoundError:
            if not make:
                raise
        except OSError as error:
            # What Linux calls ENOTDIR is ELOOP elsewhere when it is a link.
            if not make or error.errno not in (
                errno.ENOTDIR,
                errno.ELOOP,
                getattr(errno, "EMLINK", errno.ELOOP),
            ):
                raise
            self._clear(holder, name, path)
        # Somebody else may just have made it.
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o777, dir_fd=holder)
        return os.open(name, DIRECTORY, dir_fd=holder)


def remove(folder: int, name: bytes) -> None:
    """Remove a file, a link, or a folder with all that is in it; gone is fine."""
    try:
        os.unlink(name, dir_fd=folder)
        return
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.EISDIR, errno.EPERM, errno.EACCES):
            raise
    inner = os.open(name, DIRECTORY, dir_fd=folder)
    try:
        os.fchmod(inner, 0o700)
        for item in os.listdir(inner):
            remove(inner, os.fsencode(item))
    finally:
        os.close(inner)
    os.rmdir(name, dir_fd=folder)
