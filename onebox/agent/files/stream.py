"""
File contents on their way: one stream of records, without a question per file.

A record is the length of a path, an offset and the path; then segments, each an
offset and a length in 16 bytes and that much data, so that holes stay holes; then
a segment of length 0, and `+` with the hash of the whole file, or `-` with 32
bytes of nothing if the file could not be sent as it was announced. Records are
packed into D frames (see `squeeze` for C), many small files in one.

An *offset* above 0 goes on where the receiver has got to: it had offered what
it has, with the hash of that, and the sender found its own file to begin so.
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
from .block_hashes import BLOCK, Data, Sum, keep_memory, told
from .compression import unsqueeze
from .manifest import Entry

HEAD = struct.Struct(">IQ")
SEGMENT = struct.Struct(">QQ")
END = struct.Struct(">QQ1s32s")
# What of it follows a segment of length 0.
ENDED = struct.Struct(">1s32s")
# In a segment's length: no data follows, the receiver has it in its own file.
SAME = 1 << 63
LONGEST_PATH = 1 << 18
ZEROS = bytes(BLOCK)
# Files up to this size come in one piece.
SMALL = CHUNK
# Files above this size are hashed by a thread beside the one that moves them.
WORTH_A_THREAD = 4 << 20
Moved = Callable[[int], object]
Step = Tuple[Callable[[Data], None], Data]


class Offer(NamedTuple):
    """
    What the receiver of a file has of it already: *offset* bytes hashing to *sha*.

    *whole* means that these bytes are not a partial, but a file in its place.
    *blocks* are the hashes of the blocks of the file that is in its place now; the
    sender has as much of them as it was told (see `blocks`).
    """

    entry: Entry
    offset: int = 0
    sha: bytes = b""
    whole: bool = False
    blocks: bytes = b""

    def told(self) -> List[Any]:
        """Return what the sender has to know of it, for JSON; nothing is nothing."""
        if not self.offset and not self.blocks:
            return []
        return [self.offset, self.sha.hex(), self.whole, told(self.blocks).hex()]

    def taken(self, offset: int, sha: str, whole: bool, blocks: str) -> "Offer":
        """Return the offer that *told* has put into these words."""
        return Offer(
            self.entry,
            int(offset),
            bytes.fromhex(sha),
            bool(whole),
            bytes.fromhex(blocks),
        )


class Inflow:
    """The D and C frames of a stream, as one sequence of bytes that a Z ends."""

    def __init__(self, frames: Callable[[], Tuple[bytes, bytes]]) -> None:
        self._frames = frames
        self._data = memoryview(b"")
        self._at = 0

    def head(self) -> Optional[Tuple[bytes, int]]:
        """Return the path and offset that begin a record; None after the last."""
        if self._at >= len(self._data) and not self._more():
            return None
        length, start = HEAD.unpack(self.exactly(HEAD.size))
        if length > LONGEST_PATH:
            raise Hostile("a path without an end")
        return bytes(self.exactly(length)), start

    def exactly(self, count: int) -> memoryview:
        """Return so many bytes."""
        end = self._at + count
        while end > len(self._data):
            if not self._more():
                raise Hostile("the stream ends within a record")
            end = self._at + count
        piece = self._data[self._at : end]
        self._at = end
        return piece

    def some(self, most: int) -> memoryview:
        """Return at least one byte and at most so many."""
        if self._at >= len(self._data) and not self._more():
            raise Hostile("the stream ends within a record")
        piece = self._data[self._at : self._at + most]
        self._at += len(piece)
        return piece

    def _more(self) -> bool:
        while True:
            kind, payload = self._frames()
            if kind == b"Z":
                return False
            if kind == b"C":
                payload = unsqueeze(payload)
            elif kind != b"D":
                raise Hostile("a %r frame within a stream" % kind)
            if payload:
                break
        rest = self._data[self._at :]
        self._data = memoryview(b"".join((rest, payload)) if rest else payload)
        self._at = 0
        return True


class Hasher:
    """A hash under way, in a thread of its own for what is worth one."""

    def __init__(self, whole: Sum, *, threaded: bool) -> None:
        self._whole = whole
        self._queue: Optional[queue.Queue[Optional[Step]]] = None
        if threaded:
            keep_memory()
            self._queue = queue.Queue(16)
            self._thread = threading.Thread(target=self._work, args=(self._queue,))
            # Ctrl-C can come in here: who ends then must not wait for it.
            self._thread.daemon = True
            self._thread.start()

    def update(self, data: Data) -> None:
        """Go on with these bytes."""
        self._go_on(self._whole.update, data)

    def known(self, digests: bytes) -> None:
        """Go on with blocks of which the hashes are known."""
        self._go_on(self._whole.known, digests)

    def zeros(self, count: int, moved: Moved) -> None:
        """Go on with so many zero bytes: a hole. It is told as moved."""
        while count > 0:
            moved(min(count, BLOCK))
            self.update(ZEROS if count >= BLOCK else bytes(count))
            count -= BLOCK

    def digest(self) -> bytes:
        """Return the hash; the thread ends."""
        if self._queue is not None:
            self._queue.put(None)
            self._thread.join()
            self._queue = None
        return self._whole.digest()

    def _go_on(self, step: Callable[[Data], None], data: Data) -> None:
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


def head(path: bytes, start: int) -> bytes:
    """Return what begins a record."""
    return HEAD.pack(len(path), start) + path
