"""Sizes and durations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onebox.settings.units import format_bytes, parse_bytes, parse_duration


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("256 GB", 256 * 1024**3),
        ("256GiB", 256 * 1024**3),
        ("256", 256 * 1024**3),
        (" 1.5 TB ", 1536 * 1024**3),
        ("512 mb", 512 * 1024**2),
        ("4K", 4096),
    ],
)
def test_size_units(text: str, wanted: int) -> None:
    """Units are powers of 1024, as in the clouds' tables; none means GB."""
    assert parse_bytes(text) == wanted


@pytest.mark.parametrize(
    "text",
    ["", "lots", "-1 GB", "1e9", "1 PB", "GB", "1 GB 2", "nan", "9" * 13, "٣ GB"],
)
def test_no_size(text: str) -> None:
    """What is not a number and a unit is refused."""
    with pytest.raises(ValueError, match="not an amount"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("90", 90.0),
        ("90 s", 90.0),
        ("5min", 300.0),
        ("1.5 h", 5400.0),
        ("2 D", 172800.0),
    ],
)
def test_duration_units(text: str, wanted: float) -> None:
    """Durations are in s, min (m), h or d; none means seconds."""
    assert parse_duration(text) == wanted


@pytest.mark.parametrize("text", ["", "soon", "-5 s", "5 years", "1 h 30 min", "inf"])
def test_no_duration(text: str) -> None:
    """What is not one number and one unit is refused."""
    with pytest.raises(ValueError, match="not a"):
        parse_duration(text)


@given(st.integers(1, 1 << 16), st.sampled_from([10, 20, 30, 40]))
def test_size_said_is_size_read(number: int, shift: int) -> None:
    """`format_bytes` writes what `size` reads as the same number of bytes."""
    assert parse_bytes(format_bytes(number << shift)) == number << shift
