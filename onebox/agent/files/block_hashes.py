"""
The hash of a file, and of the blocks of a big one.

Up to a size it is the SHA-256 of the file. Of a bigger file it is the SHA-256 of
its blocks' SHA-256s, one after the other: several threads can work on that, and
a block that is known not to have changed need not be read.

Blocks count as the same at the same place only: files that change in their middle
or grow at their end are found, what has moved within a file is not.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Deque, Iterator, Tuple, Union

Data = Union[bytes, bytearray, memoryview]
BLOCK = 1 << 20
BIG = 8 << 20
DIGEST = 32
# So much of a block's hash is told: enough for an accident never to happen, and
# the hash of the whole file decides.
SUM = 8
# So many blocks in all, for what is said of them has to stay short.
MOST = 1 << 17
THREADS = min(4, os.cpu_count() or 1)
# More than all blocks that are under way at a time.
UNDER_WAY = 16 << 20
# The kernel cannot copy between these two by itself.
UNABLE = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM)


class Sum:
    """The hash of a file of *size* bytes under way; *blocks* are its blocks' hashes."""

    def __init__(self, size: int) -> None:
        self.blocks = b""
        self._big = size > BIG
        self._part = hashlib.sha256()
        self._filled = 0
        self._ended = bytearray()

    def update(self, data: Data) -> None:
        """Go on with these bytes."""
        if not self._big:
            self._part.update(data)
            return
        view = memoryview(data)
        while view:
            piece = view[: BLOCK - self._filled]
            self._part.update(piece)
            self._filled += len(piece)
            if self._filled == BLOCK:
                self._ended += self._part.digest()
                self._part = hashlib.sha256()
                self._filled = 0
            view = view[len(piece) :]

    def known(self, digests: Data) -> None:
        """Go on with blocks of which the hashes are known, after whole blocks."""
        assert self._big
        assert not self._filled
        self._ended += digests

    def digest(self) -> bytes:
        """Return the hash of what has come so far."""
        if not self._big:
            return self._part.digest()
        last = self._part.digest() if self._filled else b""
        self.blocks = bytes(self._ended) + last
        return hashlib.sha256(self.blocks).digest()


@functools.lru_cache(maxsize=None)
def keep_memory() -> None:
    """
    Have what one block's memory was be the next one's.

    glibc gives a block of more than 128 KiB back to the kernel, and has the next
    one's pages made and cleared anew, until something bigger has been let go.
    """
    bytes(UNDER_WAY)


def read(fd: int, size: int) -> Iterator[Tuple[bytes, bytes]]:
    """Yield a file's blocks and their hashes; several threads read ahead."""
    keep_memory()
    waiting: Deque[Future[Tuple[bytes, bytes]]] = deque()
    with ThreadPoolExecutor(THREADS) as pool:
        for at in range(0, size, BLOCK):
            waiting.append(pool.submit(_read, fd, at, min(BLOCK, size - at)))
            if len(waiting) > 2 * THREADS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def told(digests: bytes) -> bytes:
    """Return what is said of blocks that have these hashes."""
    return b"".join(digests[at : at + SUM] for at in range(0, len(digests), DIGEST))


def at(told: bytes, place: int) -> bytes:
    """Return what has been said of the block that begins at *place*."""
    number = place // BLOCK * SUM
    return told[number : number + SUM]


def filled(fd: int, start: int, end: int) -> Iterator[Tuple[int, int]]:
    """Yield where a file has data between two places, as begin and end."""
    st = os.fstat(fd)
    if not hasattr(os, "SEEK_DATA") or st.st_blocks * 512 >= st.st_size:
        yield start, end
        return
    at = start
    while at < end:
        try:
            begin = os.lseek(fd, at, os.SEEK_DATA)
            after = os.lseek(fd, begin, os.SEEK_HOLE)
        except OSError as error:
            if error.errno != errno.ENXIO:
                # The file system does not know about holes.
                yield at, end
            return
        if begin < end:
            yield begin, min(after, end)
        at = after


def copy(source: int, target: int, at: int, count: int) -> int:
    """Copy up to so many bytes to the same place in another file; return how many."""
    if hasattr(os, "copy_file_range"):
        try:
            return os.copy_file_range(source, target, count, at, at)
        except OSError as error:
            if error.errno not in UNABLE:
                raise
    data = os.pread(source, min(count, BLOCK), at)
    return os.pwrite(target, data, at)


def _read(fd: int, at: int, count: int) -> Tuple[bytes, bytes]:
    block = os.pread(fd, count, at)
    return block, hashlib.sha256(block).digest()
