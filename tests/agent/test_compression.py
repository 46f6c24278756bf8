"""Blocks are compressed if the connection is slower than the compression."""

from __future__ import annotations

import os
import zlib

import pytest

from onebox.agent.file_names import Hostile
from onebox.agent.files.content_stream import BUFFERED, Compressor, decompress

TEXT = b"epoch 1/3 loss 0.41, and so on\n" * 8000


class Connection:
    """A connection with a fixed rate in bytes a second, and a clock of its own."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.now = 0.0
        self.sent: list[tuple[bytes, bytes]] = []

    def send(self, kind: bytes, payload: bytes) -> None:
        """Accept a frame, and advance the clock by the time that it takes."""
        self.sent.append((kind, payload))
        self.now += len(payload) / self.rate

    def clock(self) -> float:
        """Return the time."""
        return self.now


def test_compressed_block_arrives_byte_for_byte() -> None:
    """A compressed block arrives byte for byte, and is shorter on the way."""
    line = Connection(1e6)
    Compressor(line.send, line.clock)(TEXT)
    kind, payload = line.sent[0]

    assert b"C" == kind
    assert len(payload) < len(TEXT) // 2
    assert TEXT == decompress(payload)


def test_incompressible_block_is_sent_as_it_is() -> None:
    """
    A block that does not shrink is sent as it is, even over the slowest connection.
    """
    line = Connection(1e5)
    squeeze = Compressor(line.send, line.clock)
    block = os.urandom(1 << 18)
    for _ in range(50):
        squeeze(block)

    assert {(b"D", block)} == set(line.sent)


@pytest.mark.parametrize(("rate", "kind"), [(2.5e6, b"C"), (125e6, b"D")])
def test_only_a_slow_connection_gets_compressed_blocks(
    rate: float, kind: bytes
) -> None:
    """Once the rate is measured, only a slow connection gets compressed blocks."""
    line = Connection(rate)
    squeeze = Compressor(line.send, line.clock)
    for _ in range(2 * BUFFERED // len(TEXT)):
        squeeze(os.urandom(len(TEXT)))
    squeeze(TEXT)

    assert kind == line.sent[-1][0]


@pytest.mark.parametrize(
    "packed", [b"", b"noise", zlib.compress(TEXT)[:-5], zlib.compress(TEXT) + b"more"]
)
def test_incomplete_compressed_frame_is_refused(packed: bytes) -> None:
    """A frame that is not exactly one complete compressed block is refused."""
    with pytest.raises(Hostile):
        decompress(packed)


def test_frame_that_decompresses_to_too_much_is_refused() -> None:
    """A small frame may not decompress to more than a frame may hold."""
    with pytest.raises(Hostile):
        decompress(zlib.compress(bytes(1 << 27)))
