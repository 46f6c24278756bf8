"""
Read and write the stream of file contents, which consists of one record per file.

A record begins with the length of the file's path, an offset and the path. Segments
follow; the last one has the length 0. The record ends with `+` and the hash of the
whole file. If the file could not be sent as it was announced, the record ends with `-`
and 32 zero bytes instead. A segment is an offset and a length (16 bytes together), and
as many bytes of data. The gaps between segments are holes.

Records are sent in D frames, many small ones in one frame. On a slow connection, a
frame that compression makes shorter is sent as a C frame instead. The rate of the
connection is computed from the number of sent bytes and the time that sending took.

If the offset of a record is above 0, the receiver already has that many bytes of the
file, and the record continues after them. The receiver had offered the number and the
hash of its bytes, and the sender had found that its file begins with the same bytes.
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
# A record ends with the segment of length 0, the status (+ or -) and the hash.
END = struct.Struct(">QQ1s32s")
# This is the part of `END` that follows the segment of length 0.
STATUS = struct.Struct(">1s32s")
# If this bit of a segment's length is set, no data follows, because the receiver's
# previous version of the file has these bytes.
UNCHANGED = 1 << 63
LONGEST_PATH = 1 << 18
# A file of at most this many bytes is sent as one segment.
SMALL = CHUNK
# zlib compresses roughly this many bytes per second at level 1. On a faster connection,
# sending compressed data takes longer than sending the data as it is.
SLOW = 30e6
# On a connection that sends fewer bytes per second than this, there is time for zlib's
# level 6, which is slower.
VERY_SLOW = 5e6
# Pipes, sockets and ssh's window take up to this many bytes at once. So the time that
# sending takes shows the rate of the connection only after more bytes were sent.
BUFFERED = 8 << 20
SAMPLE = 1 << 14
# A block is sent compressed only if compression shrinks it to less than this share of
# its size.
WORTH = 0.9
# A function that is called with the number of bytes of each part that is transferred.
Moved = Callable[[int], object]
Send = Callable[[bytes, bytes], None]


class FileOffer(NamedTuple):
    """
    A file to be sent, and what the receiver already has of it.

    The receiver has *offset* bytes with the hash *sha*. If *whole* is set, these are
    the complete file that is at the path now. Otherwise they are the beginning of the
    file, which an earlier attempt has received. *blocks* are the block hashes of the
    receiver's previous version of a big file. The sender gets them in short form (see
    `block_hashes.shortened`).
    """

    entry: Entry
    offset: int = 0
    sha: bytes = b""
    whole: bool = False
    blocks: bytes = b""

    def to_json(self) -> List[Any]:
        """
        Return JSON values that tell the sender what the receiver already has.

        The list is empty if the receiver has nothing that the sender can use.
        """
        if not self.offset and not self.blocks:
            return []
        blocks = shortened(self.blocks).hex()
        return [self.offset, self.sha.hex(), self.whole, blocks]

    @classmethod
    def from_json(
        cls, entry: Entry, offset: int, sha: str, whole: bool, blocks: str
    ) -> "FileOffer":
        """
        Return the offer that `to_json` encoded; its block hashes are in short form.
        """
        return cls(
            entry,
            int(offset),
            bytes.fromhex(sha),
            bool(whole),
            bytes.fromhex(blocks),
        )


class ContentStream:
    """Reads the D and C frames up to a Z frame as one sequence of bytes."""

    def __init__(self, frames: Callable[[], Tuple[bytes, bytes]]) -> None:
        self._frames = frames
        self._data = memoryview(b"")
        self._at = 0

    def next_record(self) -> Optional[Tuple[bytes, int]]:
        """
        Return the path and offset of the next record. Return None after the last one.
        """
        if self._at >= len(self._data) and not self._fill():
            return None
        length, start = HEAD.unpack(self.read(HEAD.size))
        if length > LONGEST_PATH:
            raise Hostile("a path is too long")
        return bytes(self.read(length)), start

    def read(self, count: int) -> memoryview:
        """Return exactly *count* bytes of the stream."""
        end = self._at + count
        while end > len(self._data):
            if not self._fill():
                raise Hostile("the stream ends within a record")
            end = self._at + count
        piece = self._data[self._at : end]
        self._at = end
        return piece

    def read_some(self, most: int) -> memoryview:
        """Return at least one byte and at most *most* bytes of the stream."""
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
    """Passes blocks to *send*, compressed if that is faster on this connection."""

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
        """
        Return the compressed block, or b"" if compression does not shrink it enough.
        """
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
            # Both sums are halved, so that older measurements count less and less.
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
