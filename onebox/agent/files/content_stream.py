"""
The format in which file contents travel: records, many small ones in a frame.

A record is the length of a path, an offset and the path; then segments; then a
segment of length 0, and `+` with the hash of the whole file. `-` with 32 zero bytes
instead means that the file could not be sent as it was announced. A segment is an
offset and a length, 16 bytes, and that much data: the gaps between segments are holes.
Records travel in D frames. On a slow connection, frames that get shorter by it are
compressed: C frames. The rate of the connection is measured from the bytes sent and the
time that sending took.

A record's *offset* above 0 continues a file: the receiver offered what it has and the
hash of that, and the sender's file begins with the same bytes.
"""

from __future__ import annotations

import struct
import time
import zlib
from typing import Any, Callable, List, NamedTuple, Optional, Tuple

from ..file_names import Hostile
from ..protocol import CHUNK, LONGEST
from .block_hashes import shortened
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
# Files up to this size come in one segment.
SMALL = CHUNK
# Bytes per second that zlib compresses at level 1, roughly. On a faster connection
# compression costs time.
SLOW = 30e6
# Below this rate there is time for level 6.
VERY_SLOW = 5e6
# Pipes, sockets and ssh's window buffer this much before the rate shows.
BUFFERED = 8 << 20
SAMPLE = 1 << 14
# The compressed size, as a share of the original, above which compression is not used.
WORTH = 0.9
# A callback that counts transferred bytes.
Moved = Callable[[int], object]
Send = Callable[[bytes, bytes], None]


class FileOffer(NamedTuple):
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
    ) -> "FileOffer":
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


class Compressor:
    """Sends blocks by *send*, compressed where that is faster on this connection."""

    def __init__(self, send: Send, clock: Callable[[], float] = time.monotonic) -> None:
        self._send = send
        self._clock = clock
        self._bytes = 0.0
        self._seconds = 0.0
        self._rate = 0.0

    def __call__(self, block: bytes) -> None:
        """Send a block and measure how long that takes."""
        packed = self._compressed(block) if self._rate < SLOW else b""
        began = self._clock()
        self._send(b"C" if packed else b"D", packed or block)
        self._measure(len(packed or block), self._clock() - began)

    def _compressed(self, block: bytes) -> bytes:
        """Return the block compressed, b"" if that is not worth it."""
        level = 6 if self._rate < VERY_SLOW and self._rate else 1
        middle = max((len(block) - SAMPLE) // 2, 0)
        sample = block[middle : middle + SAMPLE]
        if len(zlib.compress(sample, 1)) > WORTH * len(sample):
            return b""
        packed = zlib.compress(block, level)
        return packed if len(packed) < WORTH * len(block) else b""

    def _measure(self, count: int, seconds: float) -> None:
        self._bytes += count
        self._seconds += seconds
        if self._bytes >= BUFFERED:
            self._rate = self._bytes / max(self._seconds, 1e-9)
            # Halving makes older measurements count less and less.
            self._bytes /= 2
            self._seconds /= 2


def record_head(path: bytes, offset: int) -> bytes:
    """Return the bytes that begin a record."""
    return HEAD.pack(len(path), offset) + path


def decompress(packed: bytes) -> bytes:
    """Return the contents of a C frame. Raises `Hostile` if it is invalid."""
    unpacker = zlib.decompressobj()
    try:
        block = unpacker.decompress(packed, LONGEST)
    except zlib.error as error:
        raise Hostile("invalid compressed data: %s" % error) from error
    if not unpacker.eof or unpacker.unused_data:
        raise Hostile("a compressed frame is too long or incomplete")
    return block
