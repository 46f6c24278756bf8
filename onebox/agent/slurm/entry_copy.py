"""Copy one entry of a home, or share it, without following links."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import BinaryIO, Callable, NamedTuple

from ..folders.entries import open_file, set_mode

# So many bytes of a file are read at once.
BLOCK = 1 << 20


class Entry(NamedTuple):
    """
    An entry that is copied from the open folder *there* to the open folder *here*.

    Pipes and sockets are left out. *beat* is called while data are copied.
    """

    name: str
    st: os.stat_result
    there: int
    here: int
    beat: Callable[[], None]

    def copy(self, old: bytes = b"", new: bytes = b"") -> None:
        """Copy it. The path *old*, if it is not empty, is replaced by *new*."""
        mode = self.st.st_mode
        if stat.S_ISDIR(mode):
            os.mkdir(self.name, 0o700, dir_fd=self.here)
            # Read-only folders become writable, so that the copy can be filled.
            os.chmod(self.name, stat.S_IMODE(mode) | 0o700, dir_fd=self.here)
        elif stat.S_ISLNK(mode):
            text = os.fsencode(os.readlink(self.name, dir_fd=self.there))
            text = text.replace(old, new) if old else text
            os.symlink(text, self.name, dir_fd=self.here)
        elif stat.S_ISREG(mode):
            self._copy_file(old, new)

    def link_or_copy(self) -> None:
        """Make the copy of a file a hard link, if that is possible."""
        if not stat.S_ISREG(self.st.st_mode) or not self._link():
            self.copy()

    def share_or_copy(self) -> None:
        """
        Make the copy of a file a hard link, if that is possible.

        The file is read-only then, because it stays in use.
        """
        if not stat.S_ISREG(self.st.st_mode) or not self._share():
            self.copy()

    def _share(self) -> bool:
        mode = stat.S_IMODE(self.st.st_mode)
        if not mode & 0o222:
            return self._link()
        # Another name of the file may be outside of the home.
        if self.st.st_nlink > 1:
            return False
        try:
            set_mode(self.name, mode & ~0o222, self.there)
        except OSError:
            return False
        try:
            return self._link()
        finally:
            # Without a link, a program may write to the file as before.
            with contextlib.suppress(OSError):
                if self._stat().st_nlink == 1:
                    set_mode(self.name, mode, self.there)

    def _link(self) -> bool:
        try:
            os.link(
                self.name,
                self.name,
                src_dir_fd=self.there,
                dst_dir_fd=self.here,
                follow_symlinks=False,
            )
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.ENOENT):
                raise
            return False
        return True

    def _stat(self) -> os.stat_result:
        return os.stat(self.name, dir_fd=self.there, follow_symlinks=False)

    def _copy_file(self, old: bytes, new: bytes) -> None:
        """Copy a file, also one whose mode forbids its owner to read it."""
        mode = stat.S_IMODE(self.st.st_mode)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with self._reader() as source:
            fd = os.open(self.name, flags, 0o600, dir_fd=self.here)
            with os.fdopen(fd, "wb", 0) as target:
                if old:
                    _replace(source, target, old, new, self.beat)
                else:
                    _copy_data(source, target, self.beat)
                for name in os.listxattr(source.fileno()):
                    with contextlib.suppress(OSError):
                        os.setxattr(fd, name, os.getxattr(source.fileno(), name))
                os.fchmod(fd, mode)
                os.utime(fd, ns=(self.st.st_atime_ns, self.st.st_mtime_ns))

    def _reader(self) -> BinaryIO:
        try:
            return open_file(self.name, self.there)
        except PermissionError:
            mode = stat.S_IMODE(self.st.st_mode)
            set_mode(self.name, mode | 0o400, self.there)
            try:
                return open_file(self.name, self.there)
            finally:
                set_mode(self.name, mode, self.there)


def _replace(
    source: BinaryIO,
    target: BinaryIO,
    old: bytes,
    new: bytes,
    beat: Callable[[], None],
) -> None:
    """Copy a file, and replace *old* by *new* in it."""
    rest = b""
    while True:
        block = source.read(BLOCK)
        *parts, last = (rest + block).split(old)
        # The end may be the beginning of *old*, if the file goes on.
        cut = max(len(last) - len(old) + 1, 0) if block else len(last)
        _write_all(target, new.join([*parts, last[:cut]]))
        if not block:
            return
        rest = last[cut:]
        beat()


def _copy_data(source: BinaryIO, target: BinaryIO, beat: Callable[[], None]) -> None:
    """Copy a file; what is a hole in the source is one in the target."""
    there, here = source.fileno(), target.fileno()
    size, at = os.fstat(there).st_size, 0
    while at < size:
        try:
            begin = os.lseek(there, at, os.SEEK_DATA)
            end = os.lseek(there, begin, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:
                # The rest is a hole.
                break
            begin, end = at, size
        at = begin
        while at < end:
            block = os.pread(there, min(BLOCK, end - at), at)
            if not block:
                return
            os.lseek(here, at, os.SEEK_SET)
            _write_all(target, block)
            at += len(block)
            beat()
    os.ftruncate(here, size)


def _write_all(target: BinaryIO, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[target.write(rest) :]
