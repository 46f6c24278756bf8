"""Compression by what the line can take, block by block."""

from __future__ import annotations

import os
import zlib

import pytest

from onebox.agent.file_names import Hostile
from onebox.agent.files.content_stream import BUFFERED, Compressor, decompress

TEXT = b"epoch 1/3 loss 0.41, and so on\n" * 8000


class Line:
    """A line of so many bytes a second, with a clock of its own."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.now = 0.0
        self.sent: list[tuple[bytes, bytes]] = []

    def send(self, kind: bytes, payload: bytes) -> None:
        """Take a frame, and the time that it takes."""
        self.sent.append((kind, payload))
        self.now += len(payload) / self.rate

    def clock(self) -> float:
        """Tell the time."""
        return self.now


def test_compressed_block_arrives_byte_for_byte() -> None:
    """
    What is compressed on the way arrives byte for byte, and is shorter.
    """
    line = Line(1e6)
    Compressor(line.send, line.clock)(TEXT)
    kind, payload = line.sent[0]

    assert b"C" == kind
    assert len(payload) < len(TEXT) // 2
    assert TEXT == decompress(payload)


def test_incompressible_block_is_sent_as_it_is() -> None:
    """
    Blocks that cannot be compressed go as they are, on the slowest line too.
    """
    line = Line(1e5)
    squeeze = Compressor(line.send, line.clock)
    block = os.urandom(1 << 18)
    for _ in range(50):
        squeeze(block)

    assert {(b"D", block)} == set(line.sent)


@pytest.mark.parametrize(("rate", "kind"), [(2.5e6, b"C"), (125e6, b"D")])
def test_only_a_slow_connection_gets_compressed_blocks(
    rate: float, kind: bytes
) -> None:
    """
    A slow line gets compressed blocks, a fast one plain ones, once it is known.
    """
    line = Line(rate)
    squeeze = Compressor(line.send, line.clock)
    for _ in range(2 * BUFFERED // len(TEXT)):
        squeeze(os.urandom(len(TEXT)))
    squeeze(TEXT)

    assert kind == line.sent[-1][0]


@pytest.mark.parametrize(
    "packed", [b"", b"noise", zlib.compress(TEXT)[:-5], zlib.compress(TEXT) + b"more"]
)
def test_incomplete_compressed_frame_is_refused(packed: bytes) -> None:
    """
    A frame that is not one whole compressed block is refused.
    """
    with pytest.raises(Hostile):
        decompress(packed)


def test_frame_that_decompresses_to_too_much_is_refused() -> None:
    """
    A small frame cannot become more than a frame may be.
    """
    with pytest.raises(Hostile):
        decompress(zlib.compress(bytes(1 << 27)))
