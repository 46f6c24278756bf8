"""Hashes of files, and which of them need not be computed again."""

from __future__ import annotations

import hashlib
import os
import struct
import time
from typing import (
    Callable,
    Dict,
    Iterable,
    Iterator,
    NamedTuple,
    Optional,
    Tuple,
)

from . import blocks
from .blocks import BIG, BLOCK, DIGEST, Sum
from .names import show

Alive = Callable[[], None]
# Size and times of a file: what changes whenever it is written to.
State = Tuple[int, int, int]


class Index:
    """
    Hashes remembered from earlier, like git's index; of big files, their blocks' too.

    A hash counts as long as size, mtime, ctime and inode of its file are what
    they were. One that was written so shortly before it was read that a later
    write could carry the same time is not remembered at all.
    """

    MAGIC = b"onebox index 2\n"
    HEAD = struct.Struct(">II")
    STATE = struct.Struct(">qqqQ")
    HASHED = STATE.size + DIGEST

    def __init__(self, file: Optional[bytes] = None) -> None:
        self._file = file
        self._since = time.time_ns()
        self._known: Dict[bytes, bytes] = {}
        self._changed = False
        if file is not None:
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
            self._changed |= self._known.pop(path, None) is not None
        else:
            before = self._known.get(path, b"")
            if before[self.STATE.size : self.HASHED] == sha:
                blocks = blocks or before[self.HASHED :]
            self._known[path] = self._state(st) + sha + blocks
            self._changed = True

    def keep(self, paths: Iterable[bytes]) -> None:
        """Forget all other paths."""
        wanted = set(paths)
        gone = [path for path in self._known if path not in wanted]
        for path in gone:
            del self._known[path]
        self._changed |= bool(gone)

    def save(self) -> None:
        """Write the index, whole or not at all, if anything is new in it."""
        if self._file is None or not self._changed:
            return
        fresh = self._file + b".%d" % os.getpid()
        whole = hashlib.sha256()
        with open(fresh, "wb") as out:
            for part in self._parts():
                whole.update(part)
                out.write(part)
            out.write(whole.digest())
        os.replace(fresh, self._file)
        self._changed = False

    def _parts(self) -> Iterator[bytes]:
        yield self.MAGIC
        for path, value in self._known.items():
            yield self.HEAD.pack(len(path), len(value)) + path + value

    def _load(self, file: bytes) -> None:
        try:
            with open(file, "rb") as stream:
                data = stream.read()
        except OSError:
            return
        body = memoryview(data)[:-32]
        # A damaged index costs time, never correctness: all is read anew.
        if hashlib.sha256(body).digest() != data[-32:]:
            return
        if not data.startswith(self.MAGIC):
            return
        at = len(self.MAGIC)
        while at < len(body):
            length, size = self.HEAD.unpack_from(data, at)
            at += self.HEAD.size
            end = at + length
            self._known[data[at:end]] = data[end : end + size]
            at = end + size

    def _state(self, st: os.stat_result) -> bytes:
        return self.STATE.pack(st.st_size, st.st_mtime_ns, st.st_ctime_ns, st.st_ino)


class Unstable(Exception):
    """A file was written to while it was read."""


class Hashed(NamedTuple):
    """A file's state, its hash, and the hashes of its blocks if it is big."""

    st: os.stat_result
    sha: bytes
    blocks: bytes


def read_hash(path: bytes, alive: Alive = lambda: None) -> Hashed:
    """
    Read a file and return its state and hash.

    Raises:
        Unstable: It was written to meanwhile.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        before = os.fstat(fd)
        whole = Sum(before.st_size)
        if before.st_size > BIG:
            for _, digest in blocks.read(fd, before.st_size):
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
