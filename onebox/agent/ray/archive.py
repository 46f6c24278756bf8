"""
The format in which files travel to the nodes of a cluster and back.

An archive is a sequence of entries. Each is a line of JSON, followed by the contents of
a file. The reader trusts nothing: every path stays inside its folder, lines and
contents have limits, and links are made last, so that no file is written through one.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from typing import (
    IO,
    Any,
    Callable,
    Iterable,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Tuple,
)

from ..file_names import Hostile, check_path, raw, text
from ..files.folder_writer import FolderWriter, remove

# A line has at most this many bytes, and a path or a target of a link at most this.
LONGEST_LINE, LONGEST_PATH = 64 << 10, 4096
CHUNK = 1 << 20
# An archive has at most so many entries.
MOST = 5_000_000
# Files are complete before they leave a folder of this name, in the folder they go to.
STAGING = b".onebox-new-"


class Entry(NamedTuple):
    """
    An entry: *kind* is "f", "d" or "l" for a file, a folder or a link.

    *mode* is that of a file or folder, *mtime* in nanoseconds, *size* that of a file,
    and *target* that of a link.
    """

    path: bytes
    kind: str
    mode: int
    mtime: int
    size: int
    target: bytes = b""


def walk(
    work: bytes,
    roots: Iterable[bytes],
    leave_out: Iterable[bytes] = (),
    unreadable: Optional[List[bytes]] = None,
) -> Iterator[bytes]:
    """
    Yield the files, links and folders at and below *roots*, sorted, folders first.

    Args:
        roots: Paths relative to *work*; b"" is *work* itself. What is missing is left.

        leave_out: Paths that are left out, with all below them.

        unreadable: Gets the paths that cannot be looked at.
    """
    without = set(leave_out)
    waiting = sorted(set(roots), reverse=True)
    unreadable = [] if unreadable is None else unreadable
    while waiting:
        path = waiting.pop()
        if path in without:
            continue
        full = os.path.join(work, path)
        try:
            mode = os.lstat(full).st_mode
            names = []
            if stat.S_ISDIR(mode):
                names = sorted(os.listdir(full), reverse=True)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            unreadable.append(path)
            continue
        if stat.S_ISDIR(mode):
            if path:
                yield path
            waiting += [os.path.join(path, name) if path else name for name in names]
        elif stat.S_ISREG(mode) or stat.S_ISLNK(mode):
            yield path


def write(file: IO[bytes], work: bytes, paths: Iterable[bytes]) -> List[bytes]:
    """
    Write the entries *paths* of the folder *work* to *file*.

    A file that grows meanwhile is cut at the size that it had. Raises OSError if one
    becomes shorter. Return the paths that cannot be read.
    """
    unreadable = []
    for path in paths:
        full = os.path.join(work, path)
        try:
            entry, fd = _open(full, path)
        except FileNotFoundError:
            continue
        except OSError:
            unreadable.append(path)
            continue
        file.write(_line(entry))
        if fd >= 0:
            with os.fdopen(fd, "rb") as source:
                _copy(source, file, entry.size, full)
    return unreadable


def _open(full: bytes, path: bytes) -> Tuple[Entry, int]:
    """Return the entry for a path, and the open file if it is one, else -1."""
    st = os.lstat(full)
    mode, mtime = stat.S_IMODE(st.st_mode), st.st_mtime_ns
    if stat.S_ISLNK(st.st_mode):
        return Entry(path, "l", mode, mtime, 0, os.readlink(full)), -1
    if stat.S_ISDIR(st.st_mode):
        return Entry(path, "d", mode, mtime, 0), -1
    fd = os.open(full, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    return Entry(path, "f", mode, mtime, os.fstat(fd).st_size), fd


def _copy(source: IO[bytes], file: IO[bytes], size: int, full: bytes) -> None:
    while size:
        data = source.read(min(size, CHUNK))
        if not data:
            name = os.fsdecode(full)
            raise OSError(errno.EIO, "it became shorter while it was read", name)
        file.write(data)
        size -= len(data)


def _line(entry: Entry) -> bytes:
    fields = [text(entry.path), *entry[1:5], text(entry.target)]
    return json.dumps(fields, separators=(",", ":")).encode("ascii") + b"\n"


class Reader:
    """
    Read an archive into a folder.

    What is in the way of an entry is replaced.

    Args:
        file: The archive, which is read once, from its beginning.

        folder: The absolute path of the folder.

        change_target: Returns the target that a link gets, from the one in the archive.

    Raises:
        Hostile: The archive is not valid.
    """

    def __init__(
        self,
        file: IO[bytes],
        folder: bytes,
        change_target: Callable[[bytes], bytes] = lambda target: target,
    ) -> None:
        self._file = file
        self._folder = folder
        self._change_target = change_target

    def read(self) -> int:
        """Write all entries to the folder; return how many there were."""
        staging = STAGING + b"%d" % os.getpid()
        writer = FolderWriter(self._folder)
        for name in os.listdir(self._folder):
            if name.startswith(STAGING):
                # A process that was killed has left it.
                remove(writer.base, name)
        links: List[Entry] = []
        folders: List[Entry] = []
        count = 0
        try:
            here = writer.folder(staging)
            here = os.dup(here)
            try:
                for entry in self._entries():
                    count += 1
                    if entry.kind == "l":
                        links.append(entry)
                    elif entry.kind == "d":
                        writer.folder(entry.path)
                        folders.append(entry)
                    else:
                        self._write_file(writer, here, entry)
                for entry in links:
                    writer.link(entry.path, self._change_target(entry.target), here)
                for entry in reversed(folders):
                    writer.chmod(entry.path, entry.mode | 0o700)
            finally:
                os.close(here)
                remove(writer.base, staging)
        finally:
            writer.close()
        return count

    def _write_file(self, writer: FolderWriter, here: int, entry: Entry) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(b"file", flags, 0o600, dir_fd=here)
        with os.fdopen(fd, "wb") as target:
            left = entry.size
            while left:
                data = self._file.read(min(left, CHUNK))
                if not data:
                    raise Hostile("the archive ends within a file")
                target.write(data)
                left -= len(data)
            target.flush()
            os.fchmod(fd, entry.mode & 0o777)
            os.utime(fd, ns=(entry.mtime, entry.mtime))
        writer.place(entry.path, here, b"file")

    def _entries(self) -> Iterator[Entry]:
        for _ in range(MOST):
            line = self._file.readline(LONGEST_LINE)
            if not line:
                return
            yield _entry(line)
        raise Hostile("the archive has too many entries")


def _entry(line: bytes) -> Entry:
    """Check and return the entry of a line. Raises `Hostile`."""
    try:
        path, kind, mode, mtime, size, target = _fields(json.loads(line))
    except (ValueError, TypeError, RecursionError) as error:
        raise Hostile("the archive has a line that is not valid") from error
    if kind not in ("f", "d", "l") or not line.endswith(b"\n"):
        raise Hostile("the archive has an entry that is not valid")
    if not 0 <= size < 1 << 50 or not 0 <= mode < 1 << 16 or abs(mtime) > 1 << 62:
        raise Hostile("the archive has a number that is not valid")
    try:
        names = raw(path), raw(target)
    except UnicodeEncodeError as error:
        raise Hostile("the archive has a name that is not valid") from error
    check_path(names[0])
    if names[0].startswith(STAGING):
        raise Hostile("the archive has a name that is not valid")
    if (
        len(names[0]) > LONGEST_PATH
        or len(names[1]) > LONGEST_PATH
        or b"\0" in names[1]
    ):
        raise Hostile("the archive has a name that is not valid")
    if kind == "l" and not target:
        raise Hostile("the archive has a link that leads nowhere")
    return Entry(names[0], kind, mode, mtime, size, names[1])


def _fields(value: Any) -> Tuple[str, str, int, int, int, str]:
    path, kind, mode, mtime, size, target = value
    if not all(type(one) is int for one in (mode, mtime, size)):
        raise ValueError("a number is missing")
    return str(path), str(kind), mode, mtime, size, str(target)
