"""Send the contents of files, as fast as they can be read and hashed."""

from __future__ import annotations

import hashlib
import os
import stat
from typing import (
    Callable,
    Optional,
    Tuple,
)

from ..protocol import CHUNK
from . import block_hashes
from .block_hashes import BLOCK, Sum
from .hash_index import Hashed, state
from .stream import (
    END,
    SAME,
    SEGMENT,
    SMALL,
    WORTH_A_THREAD,
    Hasher,
    Moved,
    Offer,
    head,
)

# So much that has stayed the same is said at a time.
RUN = 16 << 20


class Sender:
    """
    Sends files from *base*; *write* sends one frame's worth of the stream.

    *moved* is told how many bytes went out or turned out not to be needed. With
    *follow*, a link is sent as the file that it leads to.
    """

    def __init__(
        self,
        base: bytes,
        write: Callable[[bytes], None],
        moved: Moved = lambda count: None,
        *,
        follow: bool = False,
    ) -> None:
        self._flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
        if not follow:
            self._flags |= os.O_NOFOLLOW
        self._base = os.path.join(base, b"")
        self._write = write
        self._moved = moved
        self._batch = bytearray()

    def send(self, offer: Offer) -> Optional[Hashed]:
        """
        Send what the receiver lacks of a file; return its state and hashes.

        Return None if the file is not, or does not stay, what its entry says.
        """
        entry = offer.entry
        try:
            fd = os.open(self._base + entry.path, self._flags)
        except OSError:
            self._batch += head(entry.path, 0)
            return self._finish(None)
        try:
            st = os.fstat(fd)
            if not stat.S_ISREG(st.st_mode) or (st.st_size, st.st_mtime_ns) != (
                entry.size,
                entry.mtime_ns,
            ):
                self._batch += head(entry.path, 0)
                return self._finish(None)
            sums = b""
            if st.st_size <= SMALL:
                sha = self._small(fd, st, offer)
            elif offer.blocks:
                sha, sums = self._changes(fd, st.st_size, offer)
            else:
                sha, sums = self._large(fd, st, offer)
            if sha is None or state(os.fstat(fd)) != state(st):
                return self._finish(None)
            return self._finish(Hashed(st, sha, sums))
        finally:
            os.close(fd)

    def flush(self) -> None:
        """Send what is still waiting for more."""
        if self._batch:
            self._write(bytes(self._batch))
            self._batch.clear()

    def _small(self, fd: int, st: os.stat_result, offer: Offer) -> Optional[bytes]:
        data = os.read(fd, st.st_size + 1)
        if len(data) != st.st_size:
            self._batch += head(offer.entry.path, 0)
            return None
        sha = hashlib.sha256(data).digest()
        if data and offer.offset == len(data) and offer.sha == sha:
            self._batch += head(offer.entry.path, len(data))
        else:
            self._batch += head(offer.entry.path, 0)
            if data:
                self._batch += SEGMENT.pack(0, len(data))
                self._batch += data
        self._moved(len(data))
        return sha

    def _large(
        self, fd: int, st: os.stat_result, offer: Offer
    ) -> Tuple[Optional[bytes], bytes]:
        size = st.st_size
        start, whole = self._agreed(fd, size, offer)
        self._batch += head(offer.entry.path, start)
        hasher = Hasher(whole, threaded=size - start > WORTH_A_THREAD)
        at = start
        try:
            for begin, end in block_hashes.filled(fd, start, size):
                hasher.zeros(begin - at, self._moved)
                at = begin
                while at < end:
                    block = os.pread(fd, min(CHUNK, end - at), at)
                    if not block:
                        return None, b""
                    hasher.update(block)
                    self._data(at, block)
                    at += len(block)
                    self._moved(len(block))
            hasher.zeros(size - at, self._moved)
        finally:
            sha = hasher.digest()
        return sha, whole.blocks

    def _changes(
        self, fd: int, size: int, offer: Offer
    ) -> Tuple[Optional[bytes], bytes]:
        """Send the blocks that are not as in the receiver's file, and say so."""
        whole = Sum(size)
        at = said = 0
        different = False
        for block, digest in block_hashes.read(fd, size):
            if len(block) != min(BLOCK, size - at):
                break
            whole.known(digest)
            new = digest[: block_hashes.SUM] != block_hashes.at(offer.blocks, at)
            if new and not different:
                different = True
                self._batch += head(offer.entry.path, 0)
            if different and (new or at - said >= RUN):
                self._same(said, at)
                said = at
            if new:
                said += len(block)
                self._data(at, block)
            at += len(block)
            self._moved(len(block))
        sha = whole.digest()
        if not different:
            confirmed = at == size == offer.offset and offer.whole and sha == offer.sha
            self._batch += head(offer.entry.path, size if confirmed else 0)
            said = at if confirmed else 0
        self._same(said, at)
        return sha if at == size else None, whole.blocks

    def _same(self, begin: int, end: int) -> None:
        if end > begin:
            self._batch += SEGMENT.pack(begin, SAME | (end - begin))
            self.flush()

    def _data(self, at: int, data: bytes) -> None:
        view = memoryview(data)
        for start in range(0, len(data), CHUNK):
            piece = view[start : start + CHUNK]
            segment = SEGMENT.pack(at + start, len(piece))
            self._write(b"".join((self._batch, segment, piece)))
            self._batch.clear()

    def _agreed(self, fd: int, size: int, offer: Offer) -> Tuple[int, Sum]:
        whole = Sum(size)
        if not 0 < offer.offset <= size:
            return 0, whole
        at = 0
        while at < offer.offset:
            block = os.pread(fd, min(BLOCK, offer.offset - at), at)
            if not block:
                return 0, Sum(size)
            whole.update(block)
            at += len(block)
            self._moved(0)
        if whole.digest() != offer.sha:
            return 0, Sum(size)
        self._moved(at)
        return at, whole

    def _finish(self, sent: Optional[Hashed]) -> Optional[Hashed]:
        status, sha = (b"-", bytes(32)) if sent is None else (b"+", sent.sha)
        self._batch += END.pack(0, 0, status, sha)
        if len(self._batch) >= CHUNK:
            self.flush()
        return sent
