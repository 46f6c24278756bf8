"""
Write into a folder, never through a link that leads out of it.

Each folder on a path is opened separately, from the folder above it and without
following links. So a path that came over the connection cannot reach a file outside of
the base folder.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import Callable, Dict, Optional, Tuple

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# At most this many directories stay open, so that writing further files to them does
# not open them again.
MOST_OPEN = 64
Clear = Callable[[int, bytes, bytes], None]


class FolderWriter:
    """
    A folder that files are written to.

    *clear* is called when something is in the way of a new file or folder. Its
    arguments are the descriptor of a directory, a name in that directory, and the whole
    path. By default it removes the file or folder of that name.
    """

    def __init__(self, base: bytes, clear: Optional[Clear] = None) -> None:
        self.base = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._clear = clear or (lambda folder, name, path: remove(folder, name))
        self._open: Dict[bytes, int] = {}

    def folder(self, path: bytes, *, make: bool = True) -> int:
        """
        Return an open descriptor of the folder *path*.

        It is valid until another method is called.

        Args:
            make: Create the folder and its ancestors if they are missing.

        Raises:
            FileNotFoundError: The folder is missing and *make* is False.
        """
        depth, fd = self._deepest_open(path)
        # This is a loop and no recursion, because a job can nest thousands of folders.
        while depth < len(path):
            end = path.find(b"/", depth + 1)
            end = end if end >= 0 else len(path)
            step = path[:end]
            name = path[depth + 1 if depth else 0 : end]
            inner = self._enter(fd, name, step, make)
            if len(self._open) >= MOST_OPEN:
                self.forget()
            self._open[step] = fd = inner
            depth = end
        return fd

    def place(self, path: bytes, source: int, name: bytes) -> None:
        """
        Move *name* from the directory *source* to *path*.

        A file or link at *path* is replaced atomically. If a folder at *path* prevents
        the move, *clear* is called first.
        """
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
        """
        Create a link at *path*; it replaces what is there.

        The link is first created in the directory *source* and then moved to *path*.
        """
        name = b"link-%d" % os.getpid()
        remove(source, name)
        os.symlink(target, name, dir_fd=source)
        self.place(path, source, name)

    def chmod(self, path: bytes, mode: int) -> None:
        """Set the mode of a file or directory; a link is left alone."""
        folder, name = self.parent(path, make=False)
        if not stat.S_ISLNK(self.stat(path).st_mode):
            os.chmod(name, mode, dir_fd=folder)

    def stat(self, path: bytes) -> os.stat_result:
        """Return the `lstat` of a path. Raises OSError."""
        folder, name = self.parent(path, make=False)
        return os.stat(name, dir_fd=folder, follow_symlinks=False)

    def remove(self, path: bytes) -> None:
        """
        Remove a file, link or empty folder, and the ancestors that become empty.

        Nothing happens if the path is missing, or is a folder that is not empty.
        """
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
        """
        Return a descriptor of the parent folder of *path*, and the name of *path* in
        it.
        """
        above, _, name = path.rpartition(b"/")
        return self.folder(above, make=make), name

    def forget(self) -> None:
        """Close all directories except the base folder."""
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()

    def close(self) -> None:
        """Close all directories."""
        self.forget()
        os.close(self.base)

    def _deepest_open(self, path: bytes) -> Tuple[int, int]:
        """
        Find the deepest folder on *path* that is open already.

        Return the length of that folder's path, and its descriptor.
        """
        end = len(path)
        while end > 0:
            fd = self._open.get(path[:end])
            if fd is not None:
                return end, fd
            end = max(path.rfind(b"/", 0, end), 0)
        return 0, self.base

    def _enter(self, holder: int, name: bytes, path: bytes, make: bool) -> int:
        try:
            return os.open(name, DIRECTORY, dir_fd=holder)
        except FileNotFoundError:
            if not make:
                raise
        except OSError as error:
            # For a link, Linux reports ENOTDIR and other systems ELOOP or EMLINK.
            if not make or error.errno not in (
                errno.ENOTDIR,
                errno.ELOOP,
                getattr(errno, "EMLINK", errno.ELOOP),
            ):
                raise
            self._clear(holder, name, path)
        # Another process may have created the folder meanwhile.
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o777, dir_fd=holder)
        return os.open(name, DIRECTORY, dir_fd=holder)


def remove(folder: int, name: bytes) -> None:
    """
    Remove a file, a link, or a folder with all its contents; it may be missing.

    A folder that this user may not list or change is first made accessible. Each nested
    folder is moved into the topmost folder before it is emptied. So folders of any
    depth need only three descriptors and no long path.
    """
    with contextlib.suppress(FileNotFoundError):
        if _unlink(folder, name):
            return
        top = _open_up(folder, name)
        try:
            _empty(top)
        finally:
            os.close(top)
        os.rmdir(name, dir_fd=folder)


def _empty(top: int) -> None:
    mark = os.urandom(8).hex().encode("ascii")
    count = 0
    waiting = [os.fsencode(item) for item in os.listdir(top)]
    while waiting:
        name = waiting.pop()
        with contextlib.suppress(FileNotFoundError):
            if _unlink(top, name):
                continue
            inner = _open_up(top, name)
            try:
                for item in map(os.fsencode, os.listdir(inner)):
                    if not _unlink(inner, item):
                        _allow_access(inner, item)
                        count += 1
                        fresh = b"%s-%d" % (mark, count)
                        os.rename(item, fresh, src_dir_fd=inner, dst_dir_fd=top)
                        waiting.append(fresh)
            finally:
                os.close(inner)
            os.rmdir(name, dir_fd=top)


def _unlink(folder: int, name: bytes) -> bool:
    """Remove a file or link, which may be missing; return False if it is a folder."""
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno not in (errno.EISDIR, errno.EPERM, errno.EACCES):
            raise
        if not stat.S_ISDIR(_mode(folder, name)):
            raise
        return False
    return True


def _open_up(folder: int, name: bytes) -> int:
    _allow_access(folder, name)
    return os.open(name, DIRECTORY, dir_fd=folder)


def _allow_access(folder: int, name: bytes) -> None:
    """Give this user permission to list and change a folder."""
    mode = _mode(folder, name)
    if stat.S_ISDIR(mode) and mode & 0o700 != 0o700:
        os.chmod(name, 0o700, dir_fd=folder)


def _mode(folder: int, name: bytes) -> int:
    return os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
