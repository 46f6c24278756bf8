"""
Compute the hash of a file, and the hashes of the 1 MiB blocks of a big file.

The hash of a file of at most 8 MiB is its SHA-256. The hash of a bigger file is the
SHA-256 of its block hashes in order; a block hash is the SHA-256 of the block. So
several threads can compute it, and a block that is known to be unchanged need not be
read.

Two blocks are compared only if they have the same offset. So unchanged blocks are
recognised if the file has changed in the middle or has grown at its end, but not if
they have moved within the file.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import queue
import threading
from collections import deque
from typing import TYPE_CHECKING, Callable, Deque, Iterator, Optional, Tuple, Union

if TYPE_CHECKING:
    from concurrent.futures import Future

Data = Union[bytes, bytearray, memoryview]
Step = Tuple[Callable[[Data], None], Data]
BLOCK = 1 << 20
BIG = 8 << 20
DIGEST = 32
# This many bytes of each block hash are sent. With 8 bytes, an accidental match is
# practically impossible, and the hash of the whole file decides in the end.
SHORT_DIGEST = 8
# One transfer sends at most this many block hashes, which take 1 MiB in short form.
MOST_BLOCKS = 1 << 17
THREADS = min(4, os.cpu_count() or 1)
# The blocks that are in memory at the same time take less than this many bytes.
IN_USE = 16 << 20
ZEROS = bytes(BLOCK)
# If more than this many bytes of a file must still be transferred, a separate thread
# hashes them.
WORTH_A_THREAD = 4 << 20
# With these errors the kernel reports that it cannot copy between two files.
CANNOT_COPY = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM)


class HashSum:
    """
    Computes the hash of a file of *size* bytes.

    After `digest` was called, *blocks* holds the hashes of a big file's blocks.
    """

    def __init__(self, size: int) -> None:
        self.blocks = b""
        self._big = size > BIG
        self._part = hashlib.sha256()
        self._filled = 0
        self._digests = bytearray()

    def update(self, data: Data) -> None:
        """Add the next bytes of the file."""
        if not self._big:
            self._part.update(data)
            return
        view = memoryview(data)
        while view:
            piece = view[: BLOCK - self._filled]
            self._part.update(piece)
            self._filled += len(piece)
            if self._filled == BLOCK:
                self._digests += self._part.digest()
                self._part = hashlib.sha256()
                self._filled = 0
            view = view[len(piece) :]

    def add_digests(self, digests: Data) -> None:
        """
        Add the next blocks of the file, of which only the hashes are given.

        The bytes that were added before must end at the end of a block.
        """
        assert self._big
        assert not self._filled
        self._digests += digests

    def digest(self) -> bytes:
        """Return the hash of all bytes that were added."""
        if not self._big:
            return self._part.digest()
        last = self._part.digest() if self._filled else b""
        self.blocks = bytes(self._digests) + last
        return hashlib.sha256(self.blocks).digest()


@functools.lru_cache(maxsize=None)
def keep_memory() -> None:
    """
    Make glibc reuse the memory of one block for the next.

    glibc returns a freed allocation of more than 128 KiB to the kernel. Then each block
    gets new pages, which the kernel must clear. This function frees one bigger
    allocation, which makes glibc raise that limit.
    """
    bytes(IN_USE)


class Hasher:
    """Updates a `HashSum`, in a separate thread if *threaded* is set."""

    def __init__(self, hash_sum: HashSum, *, threaded: bool) -> None:
        self._hash_sum = hash_sum
        self._queue: Optional[queue.Queue[Optional[Step]]] = None
        if threaded:
            keep_memory()
            self._queue = queue.Queue(16)
            self._thread = threading.Thread(target=self._work, args=(self._queue,))
            # The thread is a daemon, so that a process that Ctrl-C ends does not wait
            # for it.
            self._thread.daemon = True
            self._thread.start()

    def update(self, data: Data) -> None:
        """Add the next bytes of the file."""
        self._run(self._hash_sum.update, data)

    def add_digests(self, digests: bytes) -> None:
        """Add the next blocks of the file, of which only the hashes are given."""
        self._run(self._hash_sum.add_digests, digests)

    def zeros(self, count: int, moved: Callable[[int], object]) -> None:
        """
        Add a hole of *count* zero bytes, calling *moved* with the number of bytes
        added.
        """
        while count > 0:
            moved(min(count, BLOCK))
            self.update(ZEROS if count >= BLOCK else bytes(count))
            count -= BLOCK

    def digest(self) -> bytes:
        """End the thread, if there is one, and return the hash."""
        if self._queue is not None:
            self._queue.put(None)
            self._thread.join()
            self._queue = None
        return self._hash_sum.digest()

    def _run(self, step: Callable[[Data], None], data: Data) -> None:
        if self._queue is None:
            step(data)
        else:
            self._queue.put((step, data))

    def _work(self, steps: queue.Queue[Optional[Step]]) -> None:
        while True:
            step = steps.get()
            if step is None:
                return
            step[0](step[1])


def read(fd: int, size: int) -> Iterator[Tuple[bytes, bytes]]:
    """
    Yield each block of the file *fd* and its hash; threads read and hash blocks ahead.
    """
    keep_memory()
    # Imported here, because it imports `logging`, and few clients send big files.
    from concurrent.futures import ThreadPoolExecutor

    waiting: Deque[Future[Tuple[bytes, bytes]]] = deque()
    with ThreadPoolExecutor(THREADS) as pool:
        for at in range(0, size, BLOCK):
            waiting.append(pool.submit(_read_block, fd, at, min(BLOCK, size - at)))
            if len(waiting) > 2 * THREADS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def hash_beginning(
    fd: int, count: int, size: int, alive: Callable[[], object]
) -> Tuple[HashSum, int]:
    """
    Hash the first *count* bytes of the file *fd*, calling *alive* often.

    *size* is the size of the complete file, also if *fd* holds only its first part.
    Return the hash sum and the number of hashed bytes, which is below *count* if *fd*
    is shorter.
    """
    hash_sum = HashSum(size)
    at = 0
    while at < count:
        block = os.pread(fd, min(BLOCK, count - at), at)
        if not block:
            break
        hash_sum.update(block)
        at += len(block)
        alive()
    return hash_sum, at


def shortened(digests: bytes) -> bytes:
    """Return block hashes in the short form in which they are sent."""
    return b"".join(
        digests[at : at + SHORT_DIGEST] for at in range(0, len(digests), DIGEST)
    )


def short_digest_at(short_digests: bytes, offset: int) -> bytes:
    """Return the short hash of the block at *offset*, b"" if there is none."""
    number = offset // BLOCK * SHORT_DIGEST
    return short_digests[number : number + SHORT_DIGEST]


def data_ranges(fd: int, start: int, end: int) -> Iterator[Tuple[int, int]]:
    """
    Yield start and end of each range of data, without the holes, from *start* to *end*.
    """
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
                # This file system does not support holes, so all bytes are data.
                yield at, end
            return
        if begin < end:
            yield begin, min(after, end)
        at = after


def copy(source: int, target: int, offset: int, count: int) -> int:
    """
    Copy up to *count* bytes at *offset* to the same offset of another file.

    Return how many bytes were copied.
    """
    if hasattr(os, "copy_file_range"):
        try:
            return os.copy_file_range(source, target, count, offset, offset)
        except OSError as error:
            if error.errno not in CANNOT_COPY:
                raise
    data = os.pread(source, min(count, BLOCK), offset)
    return os.pwrite(target, data, offset)


def _read_block(fd: int, offset: int, count: int) -> Tuple[bytes, bytes]:
    block = os.pread(fd, count, offset)
    return block, hashlib.sha256(block).digest()
