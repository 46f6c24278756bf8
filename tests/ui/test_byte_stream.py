"""Bytes on a stdout that Python code has replaced."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from onebox.ui.byte_stream import ByteStream, shown_together


class TextStream(io.TextIOBase):
    """A stream of a notebook: it has no bytes and no descriptor."""

    def __init__(self) -> None:
        self.pieces: list[str] = []

    def write(self, text: str) -> int:
        """Keep the text."""
        self.pieces.append(text)
        return len(text)


def test_text_stream_gets_whole_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    """A character may be split over two pieces; other bytes become a mark."""
    stream = TextStream()
    monkeypatch.setattr(sys, "stdout", stream)
    out = ByteStream("stdout")

    assert out.replaced
    assert all(out.write(piece) for piece in (b"a\xc3", b"\xa9\xff", b"z"))
    assert ["a", "é\ufffd", "z"] == stream.pieces


def test_file_gets_the_bytes_after_its_text(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The bytes are unchanged, and their order with text is kept."""
    with (tmp_path / "out").open("w") as file:
        monkeypatch.setattr(sys, "stdout", file)
        print("before")
        assert ByteStream("stdout").write(b"\xff\n")
        print("after")

    assert b"before\n\xff\nafter\n" == (tmp_path / "out").read_bytes()


def test_closed_stream_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The write fails without an error."""
    stream = io.StringIO()
    stream.close()
    for closed in (stream, None):
        monkeypatch.setattr(sys, "stdout", closed)
        assert not ByteStream("stdout").write(b"lost")


def test_two_streams_are_shown_together_if_they_are_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A notebook shows its stdout and its stderr apart."""
    out, err = ByteStream("stdout"), ByteStream("stderr")
    one = TextStream()
    monkeypatch.setattr(sys, "stdout", one)
    monkeypatch.setattr(sys, "stderr", one)
    assert shown_together(out, err)

    monkeypatch.setattr(sys, "stderr", TextStream())
    assert not shown_together(out, err)
