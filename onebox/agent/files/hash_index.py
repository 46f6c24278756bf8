"""Hash files, and store the hashes so that unchanged files are not read again."""

from __future__ import annotations

import contextlib
import os
import stat
import struct
import time
from typing import Callable, Iterable, NamedTuple, Optional, Tuple

from ..file_names import show
from . import block_hashes
from .block_hashes import BIG, BLOCK, DIGEST, HashSum
from .key_value_file import KeyValueFile

# A function that long work calls often, to keep the connection to the client alive.
Alive = Callable[[], None]
# This is the size, mtime and ctime of a file. One of them changes whenever the file is
# written.
FileState = Tuple[int, int, int]


class Index:
    """
    Holds the hashes of files from earlier runs, and the block hashes of big files.

    Like in git's index, a hash is valid as long as the size, mtime, ctime and inode of
    its file are unchanged.

    Args:
        file: Where the index is stored; None keeps it in memory only.

        adding: Do not load the index, only add hashes to it.
    """

    MAGIC = b"onebox index 4\n"
    STATE = struct.Struct(">qqqQ")
    HASHED = STATE.size + DIGEST

    def __init__(self, file: Optional[bytes] = None, *, adding: bool = False) -> None:
        self._since = time.time_ns()
        self._table = KeyValueFile(file, self.MAGIC, append_only=adding)
        self._rows = self._table.rows

    def get(self, path: bytes, st: os.stat_result) -> Optional[bytes]:
        """
        Return the stored hash of the file *path*. Return None if its state is not *st*.
        """
        value = self._rows.get(path)
        if value is None or not value.startswith(self._packed(st)):
            return None
        return value[self.STATE.size : self.HASHED]

    def blocks(self, path: bytes, st: os.stat_result) -> bytes:
        """
        Return the stored block hashes of the file *path*.

        Return b"" if there are none, or if the state of the file is not *st*.
        """
        if self.get(path, st) is None:
            return b""
        return self._rows[path][self.HASHED :]

    def put(
        self, path: bytes, st: os.stat_result, sha: bytes, blocks: bytes = b""
    ) -> None:
        """
        Store the hash of the file *path*, unless the file was written too recently.

        If a file was written just before it was read, a later write can leave it with
        the same mtime, because the clock advances in steps. So the hash of such a file
        is not stored. If *blocks* is empty and the stored hash is *sha* already, the
        stored block hashes are kept.
        """
        # If the file system may store only whole seconds, a write counts as recent for
        # two seconds, else for a few clock ticks.
        slack = 2_000_000_000 if st.st_mtime_ns % 1_000_000_000 == 0 else 50_000_000
        if self._since - slack <= st.st_mtime_ns <= time.time_ns() + slack:
            self._table.remove(path)
            return
        before = self._rows.get(path, b"")
        if before[self.STATE.size : self.HASHED] == sha:
            blocks = blocks or before[self.HASHED :]
        self._table.put(path, self._packed(st) + sha + blocks)

    def retain(self, paths: Iterable[bytes]) -> None:
        """Remove the hashes of all files except *paths*."""
        retained = set(paths)
        for path in [path for path in self._rows if path not in retained]:
            self._table.remove(path)

    def save(self) -> None:
        """
        Write the changed hashes to the index file.

        Errors such as a full disk are ignored, because they only cost time later.
        """
        with contextlib.suppress(OSError):
            self._table.save()

    def _packed(self, st: os.stat_result) -> bytes:
        return self.STATE.pack(st.st_size, st.st_mtime_ns, st.st_ctime_ns, st.st_ino)


class Unstable(Exception):
    """A file was written to while it was read, or is no regular file."""


class Hashed(NamedTuple):
    """A file's `stat`, its hash, and the block hashes if the file is big."""

    st: os.stat_result
    sha: bytes
    blocks: bytes


def hash_file(
    path: bytes, alive: Alive = lambda: None, *, follow: bool = False
) -> Hashed:
    """
    Read a file and return its state and hashes.

    Args:
        follow: If the path is a link, read the file that it leads to.

    Raises:
        Unstable: The file was written to meanwhile, or is no regular file.
    """
    # With O_NONBLOCK, open does not hang if the file has been replaced by a pipe that
    # has no writer.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(path, flags if follow else flags | os.O_NOFOLLOW)
    try:
        before = os.fstat(fd)
        if not stat.S_ISREG(before.st_mode):
            raise Unstable(show(path))
        hash_sum = HashSum(before.st_size)
        if before.st_size > BIG:
            for _, digest in block_hashes.read(fd, before.st_size):
                hash_sum.add_digests(digest)
                alive()
        else:
            while True:
                block = os.read(fd, BLOCK)
                if not block:
                    break
                hash_sum.update(block)
                alive()
        if file_state(os.fstat(fd)) != file_state(before):
            raise Unstable(show(path))
        return Hashed(before, hash_sum.digest(), hash_sum.blocks)
    finally:
        os.close(fd)


def file_state(st: os.stat_result) -> FileState:
    """Return the size, mtime and ctime of a file; every write changes one of them."""
    return st.st_size, st.st_mtime_ns, st.st_ctime_ns
