"""Hashes of files, and which of them need not be computed again."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import struct
import time
from typing import (
    Callable,
    Collection,
    Dict,
    Iterable,
    Iterator,
    NamedTuple,
    Optional,
    Set,
    Tuple,
)

from ..file_names import show
from . import block_hashes
from .block_hashes import BIG, BLOCK, DIGEST, Sum

# So many bytes that say nothing any more may be in a small index.
ROOM = 1 << 16
Alive = Callable[[], None]
# Size and times of a file: what changes whenever it is written to.
State = Tuple[int, int, int]


class Index:
    """
    Hashes remembered from earlier, like git's index; of big files, their blocks' too.

    A hash counts as long as size, mtime, ctime and inode of its file are what
    they were. One that was written so shortly before it was read that a later
    write could carry the same time is not remembered at all.

    The file begins with a whole index; parts that were added count for more than
    what stands before them, and an empty value says that a path was forgotten.
    """

    MAGIC = b"onebox index 3\n"
    PART = struct.Struct(">Q")
    HEAD = struct.Struct(">II")
    STATE = struct.Struct(">qqqQ")
    HASHED = STATE.size + DIGEST

    def __init__(self, file: Optional[bytes] = None, *, adding: bool = False) -> None:
        """Load what is known; nothing, if the file is only to be added to."""
        self._file = file
        self._since = time.time_ns()
        self._known: Dict[bytes, bytes] = {}
        self._adding = adding
        # Whether more can be added to the file, its size, and how much of that
        # says nothing any more.
        self._whole = adding
        self._size = self._dead = 0
        # Of which paths there is news; or that there is some, for a new file.
        self._news: Set[bytes] = set()
        self._changed = False
        if file is not None and not adding:
            self._load(file)

    def get(self, path: bytes, st: os.stat_result) -> Optional[bytes]:
        """Return the hash of a file that looks like this, if it is known."""
        value = self._known.get(path)
        if value is None or not value.startswith(self._state(st)):
            return None
        return value[self.STATE.size : self.HASHED]

    def blocks(self, path: bytes, st: os.stat_result) -> bytes:
        """Return the hashes of this file's blocks, if they are known."""
        if self.get(path, st) is None:
            return b""
        return self._known[path][self.HASHED :]

    def put(
        self, path: bytes, st: os.stat_result, sha: bytes, blocks: bytes = b""
    ) -> None:
        """
        Remember a hash, unless the file is so young that it may yet change.

        What is known of the blocks of a file with that hash stays known.
        """
        # File systems with whole seconds need two of them, the others a few ticks.
        slack = 2_000_000_000 if st.st_mtime_ns % 1_000_000_000 == 0 else 50_000_000
        if self._since - slack <= st.st_mtime_ns <= time.time_ns() + slack:
            self._forget(path)
        else:
            before = self._known.get(path, b"")
            if before[self.STATE.size : self.HASHED] == sha:
                blocks = blocks or before[self.HASHED :]
            self._known[path] = self._state(st) + sha + blocks
            self._note(path, before or None)

    def keep(self, paths: Iterable[bytes]) -> None:
        """Forget all other paths."""
        wanted = set(paths)
        for path in [path for path in self._known if path not in wanted]:
            self._forget(path)

    def save(self) -> None:
        """
        Add what is new to the file, or write it anew, whole or not at all.

        What cannot be written, on a full disk, costs time later, and nothing else.
        """
        if self._file is None:
            return
        wasteful = not self._adding and self._dead > self._size // 2 + ROOM
        with contextlib.suppress(OSError):
            if self._whole and not wasteful:
                if self._news:
                    self._add(self._file)
            elif self._changed or wasteful:
                self._write(self._file)
        self._news.clear()

    def _add(self, file: bytes) -> None:
        # In one piece: another process may do the same.
        part = b"".join(self._part(self._news))
        fd = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(fd).st_size
            part = part if size else self.MAGIC + part
            count = 0
            try:
                count = os.write(fd, part)
            finally:
                if count != len(part):
                    os.ftruncate(fd, size)
            self._size = size + count
        finally:
            os.close(fd)

    def _write(self, file: bytes) -> None:
        fresh = file + b".%d" % os.getpid()
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            with open(os.open(fresh, flags, 0o600), "wb") as out:
                out.write(self.MAGIC)
                for piece in self._part(self._known):
                    out.write(piece)
                self._size = out.tell()
            os.replace(fresh, file)
        except OSError:
            os.unlink(fresh)
            raise
        self._whole, self._changed, self._dead = True, False, 0

    def _part(self, paths: Collection[bytes]) -> Iterator[bytes]:
        """Yield a part: its length, its rows, and the hash of all that."""
        values = ((path, self._known.get(path, b"")) for path in paths)
        size = self.PART.pack(sum(self._row(path, value) for path, value in values))
        whole = hashlib.sha256(size)
        yield size
        for path in paths:
            value = self._known.get(path, b"")
            row = self.HEAD.pack(len(path), len(value)) + path + value
            whole.update(row)
            yield row
        yield whole.digest()

    def _row(self, path: bytes, value: bytes) -> int:
        return self.HEAD.size + len(path) + len(value)

    def _note(self, path: bytes, before: Optional[bytes]) -> None:
        """Take in that what was known of a path says nothing any more."""
        if before is not None:
            self._dead += self._row(path, before)
        if self._whole:
            self._news.add(path)
        else:
            self._changed = True

    def _forget(self, path: bytes) -> None:
        before = self._known.pop(path, None)
        # What is only added to may be in the file.
        if before is not None or self._adding:
            self._note(path, before)

    def _load(self, file: bytes) -> None:
        try:
            with open(file, "rb") as stream:
                data = stream.read()
        except OSError:
            return
        at = len(self.MAGIC) if data.startswith(self.MAGIC) else len(data) + 1
        # Damage costs time, never correctness: what it hides is read anew.
        while at + self.PART.size <= len(data):
            end = at + self.PART.size + self.PART.unpack_from(data, at)[0]
            told = data[end : end + DIGEST]
            if hashlib.sha256(memoryview(data)[at:end]).digest() != told:
                break
            self._take(data, at + self.PART.size, end)
            at = end + DIGEST
        self._size = len(data)
        self._whole = at == len(data)
        # What was added behind it would never be read: it is written anew.
        self._changed = not self._whole

    def _take(self, data: bytes, at: int, end: int) -> None:
        known = self._known
        while at < end:
            begin = at
            length, size = self.HEAD.unpack_from(data, at)
            middle = at + self.HEAD.size + length
            path = data[at + self.HEAD.size : middle]
            at = middle + size
            before = known.pop(path, None)
            if before is not None:
                self._dead += self._row(path, before)
            if size:
                known[path] = data[middle:at]
            else:
                self._dead += at - begin

    def _state(self, st: os.stat_result) -> bytes:
        return self.STATE.pack(st.st_size, st.st_mtime_ns, st.st_ctime_ns, st.st_ino)


class Unstable(Exception):
    """A file was written to while it was read."""


class Hashed(NamedTuple):
    """A file's state, its hash, and the hashes of its blocks if it is big."""

    st: os.stat_result
    sha: bytes
    blocks: bytes


def read_hash(
    path: bytes, alive: Alive = lambda: None, *, follow: bool = False
) -> Hashed:
    """
    Read a file and return its state and hash.

    Args:
        follow: Read what a link leads to.

    Raises:
        Unstable: It was written to meanwhile, or is no file any more.
    """
    # Where there was a file a moment ago there may be a pipe that nobody writes to.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(path, flags if follow else flags | os.O_NOFOLLOW)
    try:
        before = os.fstat(fd)
        if not stat.S_ISREG(before.st_mode):
            raise Unstable(show(path))
        whole = Sum(before.st_size)
        if before.st_size > BIG:
            for _, digest in block_hashes.read(fd, before.st_size):
                whole.known(digest)
                alive()
        else:
            while True:
                block = os.read(fd, BLOCK)
                if not block:
                    break
                whole.update(block)
                alive()
        if state(os.fstat(fd)) != state(before):
            raise Unstable(show(path))
        return Hashed(before, whole.digest(), whole.blocks)
    finally:
        os.close(fd)


def state(st: os.stat_result) -> State:
    """Return what changes whenever a file is written to."""
    return st.st_size, st.st_mtime_ns, st.st_ctime_ns
