"""
The format in which file contents travel: records, many small ones in a frame.

A record is the length of a path, an offset and the path; then segments; then a
segment of length 0, and `+` with the hash of the whole file. `-` with 32 zero bytes
instead means that the file could not be sent as it was announced. A segment is an
offset and a length, 16 bytes, and that much data: the gaps between segments are holes.
Records travel in D frames, or compressed in C frames (see `compression`).

A record's *offset* above 0 continues a file: the receiver offered what it has and the
hash of that, and the sender's file begins with the same bytes.
"""

from __future__ import annotations

import queue
import struct
import threading
from typing import (
    Any,
    Callable,
    List,
    NamedTuple,
    Optional,
    Tuple,
)

from ..file_names import Hostile
from ..protocol import CHUNK
from .block_hashes import BLOCK, Data, HashSum, keep_memory, shortened
from .compression import decompress
from .manifest import Entry

HEAD = struct.Struct(">IQ")
SEGMENT = struct.Struct(">QQ")
# The segment of length 0, the status and the hash that end a record.
END = struct.Struct(">QQ1s32s")
# The same without the segment.
STATUS = struct.Struct(">1s32s")
# This bit of a segment's length means: no data follows, the receiver's previous
# version of the file has these bytes.
UNCHANGED = 1 << 63
LONGEST_PATH = 1 << 18
ZEROS = bytes(BLOCK)
# Files up to this size come in one segment.
SMALL = CHUNK
# Files above this size are hashed in a thread beside the transfer.
WORTH_A_THREAD = 4 << 20
# A callback that counts transferred bytes.
Moved = Callable[[int], object]
Step = Tuple[Callable[[Data], None], Data]


class Offer(NamedTuple):
    """
    A file to be sent, and what the receiver already has of it.

    The receiver has the first *offset* bytes, and *sha* is their hash. They are a
    partial download, or with *whole* a complete file in its place. *blocks* are the
    block hashes of the file that is in its place now; the sender has them in short
    form (see `block_hashes.shortened`).
    """

    entry: Entry
    offset: int = 0
    sha: bytes = b""
    whole: bool = False
    blocks: bytes = b""

    def to_json(self) -> List[Any]:
        """Return what the sender needs to know, as JSON values; [] for nothing."""
        if not self.offset and not self.blocks:
            return []
        blocks = shortened(self.blocks).hex()
        return [self.offset, self.sha.hex(), self.whole, blocks]

    @classmethod
    def from_json(
        cls, entry: Entry, offset: int, sha: str, whole: bool, blocks: str
    ) -> "Offer":
        """Return the offer that `to_json` has turned into these values."""
        return cls(
            entry,
            int(offset),
            bytes.fromhex(sha),
            bool(whole),
            bytes.fromhex(blocks),
        )


class ContentStream:
    """The D and C frames of a stream read as one sequence of bytes, up to a Z."""

    def __init__(self, frames: Callable[[], Tuple[bytes, bytes]]) -> None:
        self._frames = frames
        self._data = memoryview(b"")
        self._at = 0

    def next_record(self) -> Optional[Tuple[bytes, int]]:
        """Return the path and offset of the next record; None after the last one."""
        if self._at >= len(self._data) and not self._fill():
            return None
        length, start = HEAD.unpack(self.read(HEAD.size))
        if length > LONGEST_PATH:
            raise Hostile("a path is too long")
        return bytes(self.read(length)), start

    def read(self, count: int) -> memoryview:
        """Return exactly *count* bytes."""
        end = self._at + count
        while end > len(self._data):
            if not self._fill():
                raise Hostile("the stream ends within a record")
            end = self._at + count
        piece = self._data[self._at : end]
        self._at = end
        return piece

    def read_some(self, most: int) -> memoryview:
        """Return at least one byte and at most *most*."""
        if self._at >= len(self._data) and not self._fill():
            raise Hostile("the stream ends within a record")
        piece = self._data[self._at : self._at + most]
        self._at += len(piece)
        return piece

    def _fill(self) -> bool:
        while True:
            kind, payload = self._frames()
            if kind == b"Z":
                return False
            if kind == b"C":
                payload = decompress(payload)
            elif kind != b"D":
                raise Hostile("unexpected frame %r in a stream" % kind)
            if payload:
                break
        rest = self._data[self._at :]
        self._data = memoryview(b"".join((rest, payload)) if rest else payload)
        self._at = 0
        return True


class Hasher:
    """Feeds a `HashSum`, with *threaded* in a thread of its own."""

    def __init__(self, hash_sum: HashSum, *, threaded: bool) -> None:
        self._hash_sum = hash_sum
        self._queue: Optional[queue.Queue[Optional[Step]]] = None
        if threaded:
            keep_memory()
            self._queue = queue.Queue(16)
            self._thread = threading.Thread(target=self._work, args=(self._queue,))
            # A daemon, so that a process ended by Ctrl-C does not wait for it.
            self._thread.daemon = True
            self._thread.start()

    def update(self, data: Data) -> None:
        """Add the next bytes."""
        self._run(self._hash_sum.update, data)

    def add_digests(self, digests: bytes) -> None:
        """Add the next blocks by their hashes."""
        self._run(self._hash_sum.add_digests, digests)

    def zeros(self, count: int, moved: Moved) -> None:
        """Add the zero bytes of a hole, and count them as moved."""
        while count > 0:
            moved(min(count, BLOCK))
            self.update(ZEROS if count >= BLOCK else bytes(count))
            count -= BLOCK

    def digest(self) -> bytes:
        """Return the hash; this ends the thread."""
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


def record_head(path: bytes, offset: int) -> bytes:
    """Return the bytes that begin a record."""
    return HEAD.pack(len(path), offset) + path
