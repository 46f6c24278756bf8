"""
Compress what goes over a slow line, block by block, where that makes it shorter.

What is compressed travels as a C frame in the place of a D frame. Nobody has to
say how fast the line is: what has gone out, and how long that took, says it.
"""

from __future__ import annotations

import time
import zlib
from typing import Callable

from ..file_names import Hostile
from ..protocol import LONGEST

# As fast as zlib's first level is, roughly; no faster line is worth its while.
SLOW = 30e6
# Below this there is time for a higher level.
VERY_SLOW = 5e6
# Pipes, sockets and ssh's window swallow this much before a line shows its rate.
SWALLOWED = 8 << 20
SAMPLE = 1 << 14
WORTH = 0.9

Send = Callable[[bytes, bytes], None]


class Squeezer:
    """Sends blocks by *send*, as short as is worth it on this line."""

    def __init__(self, send: Send, clock: Callable[[], float] = time.monotonic) -> None:
        self._send = send
        self._clock = clock
        self._bytes = 0.0
        self._seconds = 0.0
        self._rate = 0.0

    def __call__(self, block: bytes) -> None:
        """Send a block, and take the time."""
        packed = self._packed(block) if self._rate < SLOW else b""
        began = self._clock()
        self._send(b"C" if packed else b"D", packed or block)
        self._learn(len(packed or block), self._clock() - began)

    def _packed(self, block: bytes) -> bytes:
        """Return the block compressed, or nothing if that is of no use."""
        level = 6 if self._rate < VERY_SLOW and self._rate else 1
        middle = max((len(block) - SAMPLE) // 2, 0)
        sample = block[middle : middle + SAMPLE]
        if len(zlib.compress(sample, 1)) > WORTH * len(sample):
            return b""
        packed = zlib.compress(block, level)
        return packed if len(packed) < WORTH * len(block) else b""

    def _learn(self, count: int, seconds: float) -> None:
        self._bytes += count
        self._seconds += seconds
        if self._bytes >= SWALLOWED:
            self._rate = self._bytes / max(self._seconds, 1e-9)
            # What is long ago counts less and less.
            self._bytes /= 2
            self._seconds /= 2


def unsqueeze(packed: bytes) -> bytes:
    """Return what is in a C frame. Raises `Hostile` if that cannot be."""
    unpacker = zlib.decompressobj()
    try:
        block = unpacker.decompress(packed, LONGEST)
    except zlib.error as error:
        raise Hostile("not compressed: %s" % error) from error
    if not unpacker.eof or unpacker.unused_data:
        raise Hostile("too much, or too little, in a compressed frame")
    return block
