"""
Compress frames on a slow connection, where that makes them shorter.

A compressed block travels in a C frame instead of a D frame. The rate of the connection
is measured from the bytes sent and the time that sending took.
"""

from __future__ import annotations

import time
import zlib
from typing import Callable

from ..file_names import Hostile
from ..protocol import LONGEST

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

Send = Callable[[bytes, bytes], None]


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
