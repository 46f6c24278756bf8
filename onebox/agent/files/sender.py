"""Send the contents of files as fast as they can be read and hashed."""

from __future__ import annotations

import hashlib
import os
import stat
from typing import Callable, Optional, Tuple

from ..protocol import CHUNK
from . import block_hashes
from .block_hashes import BLOCK, WORTH_A_THREAD, Hasher, HashSum
from .content_stream import (
    END,
    SEGMENT,
    SMALL,
    UNCHANGED,
    FileOffer,
    Moved,
    record_head,
)
from .hash_index import Hashed, file_state

# After the first changed block, unchanged ranges are sent as segments of at most this
# many bytes, so that the receiver copies while the sender still reads.
LONGEST_RANGE = 16 << 20


class Sender:
    """
    Sends files from the folder *base*.

    Args:
        write: Is called with each part of the stream, and sends it as one frame.

        moved: Is called with the number of bytes of each part that was sent or need not
            be sent.

        follow: If a path is a link, send the file that it leads to.
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

    def send(self, offer: FileOffer) -> Optional[Hashed]:
        """
        Send the parts of a file that the receiver lacks; return its state and hashes.

        Return None if the file cannot be opened, has a size or time that differs from
        its entry, or changes while it is read.
        """
        entry = offer.entry
        try:
            fd = os.open(self._base + entry.path, self._flags)
        except OSError:
            self._batch += record_head(entry.path, 0)
            return self._end_record(None)
        try:
            st = os.fstat(fd)
            if not stat.S_ISREG(st.st_mode) or (st.st_size, st.st_mtime_ns) != (
                entry.size,
                entry.mtime_ns,
            ):
                self._batch += record_head(entry.path, 0)
                return self._end_record(None)
            blocks = b""
            if st.st_size <= SMALL:
                sha = self._send_small(fd, st, offer)
            elif offer.blocks:
                sha, blocks = self._send_changed_blocks(fd, st.st_size, offer)
            else:
                sha, blocks = self._send_large(fd, st, offer)
            if sha is None or file_state(os.fstat(fd)) != file_state(st):
                return self._end_record(None)
            return self._end_record(Hashed(st, sha, blocks))
        finally:
            os.close(fd)

    def flush(self) -> None:
        """Send the records that were collected but not sent yet."""
        if self._batch:
            self._write(bytes(self._batch))
            self._batch.clear()

    def _send_small(
        self, fd: int, st: os.stat_result, offer: FileOffer
    ) -> Optional[bytes]:
        data = os.read(fd, st.st_size + 1)
        if len(data) != st.st_size:
            self._batch += record_head(offer.entry.path, 0)
            return None
        sha = hashlib.sha256(data).digest()
        if data and offer.offset == len(data) and offer.sha == sha:
            self._batch += record_head(offer.entry.path, len(data))
        else:
            self._batch += record_head(offer.entry.path, 0)
            if data:
                self._batch += SEGMENT.pack(0, len(data))
                self._batch += data
        self._moved(len(data))
        return sha

    def _send_large(
        self, fd: int, st: os.stat_result, offer: FileOffer
    ) -> Tuple[Optional[bytes], bytes]:
        """
        Send the bytes of a file that the receiver does not have yet.

        Return the hash of the file and its block hashes. The hash is None if the file
        has become shorter.
        """
        size = st.st_size
        start, hash_sum = self._agreed_start(fd, size, offer)
        self._batch += record_head(offer.entry.path, start)
        hasher = Hasher(hash_sum, threaded=size - start > WORTH_A_THREAD)
        at = start
        try:
            for begin, end in block_hashes.data_ranges(fd, start, size):
                hasher.zeros(begin - at, self._moved)
                at = begin
                while at < end:
                    block = os.pread(fd, min(CHUNK, end - at), at)
                    if not block:
                        return None, b""
                    hasher.update(block)
                    self._send_data(at, block)
                    at += len(block)
                    self._moved(len(block))
            hasher.zeros(size - at, self._moved)
        finally:
            sha = hasher.digest()
        return sha, hash_sum.blocks

    def _send_changed_blocks(
        self, fd: int, size: int, offer: FileOffer
    ) -> Tuple[Optional[bytes], bytes]:
        """
        Send the blocks that differ from the receiver's previous version.

        For unchanged blocks, only their ranges are sent. Return the hash of the file
        and its block hashes. The hash is None if the file has become shorter.
        """
        hash_sum = HashSum(size)
        # The stream describes the file up to *sent*. The blocks from *sent* to *at* are
        # unchanged, and not in the stream yet.
        at = sent = 0
        different = False
        for block, digest in block_hashes.read(fd, size):
            if len(block) != min(BLOCK, size - at):
                break
            hash_sum.add_digests(digest)
            short_digest = digest[: block_hashes.SHORT_DIGEST]
            new = short_digest != block_hashes.short_digest_at(offer.blocks, at)
            if new and not different:
                different = True
                self._batch += record_head(offer.entry.path, 0)
            if different and (new or at - sent >= LONGEST_RANGE):
                self._send_unchanged(sent, at)
                sent = at
            if new:
                sent += len(block)
                self._send_data(at, block)
            at += len(block)
            self._moved(len(block))
        sha = hash_sum.digest()
        if not different:
            equal = at == size == offer.offset and offer.whole and sha == offer.sha
            self._batch += record_head(offer.entry.path, size if equal else 0)
            sent = at if equal else 0
        self._send_unchanged(sent, at)
        return sha if at == size else None, hash_sum.blocks

    def _send_unchanged(self, begin: int, end: int) -> None:
        if end > begin:
            self._batch += SEGMENT.pack(begin, UNCHANGED | (end - begin))
            self.flush()

    def _send_data(self, at: int, data: bytes) -> None:
        view = memoryview(data)
        for start in range(0, len(data), CHUNK):
            piece = view[start : start + CHUNK]
            segment = SEGMENT.pack(at + start, len(piece))
            self._write(b"".join((self._batch, segment, piece)))
            self._batch.clear()

    def _agreed_start(
        self, fd: int, size: int, offer: FileOffer
    ) -> Tuple[int, HashSum]:
        """
        Return the number of bytes that the receiver already has, and their hash sum.

        The number is 0 if the offered bytes are not the beginning of this file.
        """
        if 0 < offer.offset <= size:
            # While these bytes are hashed, no data is sent. *moved* is called with 0,
            # so that the caller can update its display or send keep-alives.
            hash_sum, at = block_hashes.hash_beginning(
                fd, offer.offset, size, lambda: self._moved(0)
            )
            if at == offer.offset and hash_sum.digest() == offer.sha:
                self._moved(at)
                return at, hash_sum
        return 0, HashSum(size)

    def _end_record(self, sent: Optional[Hashed]) -> Optional[Hashed]:
        status, sha = (b"-", bytes(32)) if sent is None else (b"+", sent.sha)
        self._batch += END.pack(0, 0, status, sha)
        if len(self._batch) >= CHUNK:
            self.flush()
        return sent
