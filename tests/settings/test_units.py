"""Sizes in bytes, and durations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onebox.settings.units import format_bytes, parse_bytes, parse_duration


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("256 GB", 256 * 1024**3),
        ("256GiB", 256 * 1024**3),
        ("256", 256 * 1024**3),
        (" 1.5 TB ", 1536 * 1024**3),
        ("512 mb", 512 * 1024**2),
        ("4K", 4096),
    ],
)
def test_size_units_are_powers_of_1024(text: str, expected: int) -> None:
    """Units are those of the clouds' tables; a number without a unit is in GB."""
    assert parse_bytes(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "lots", "-1 GB", "1e9", "1 PB", "GB", "1 GB 2", "nan", "9" * 13, "٣ GB"],
)
def test_text_without_a_number_and_a_unit_is_no_size(text: str) -> None:
    """Any other text is refused."""
    with pytest.raises(ValueError, match="not an amount"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90", 90.0),
        ("90 s", 90.0),
        ("5min", 300.0),
        ("1.5 h", 5400.0),
        ("2 D", 172800.0),
    ],
)
def test_durations_are_read_in_s_min_h_and_d(text: str, expected: float) -> None:
    """m is minutes; a number without a unit is in seconds."""
    assert parse_duration(text) == expected


@pytest.mark.parametrize("text", ["", "soon", "-5 s", "5 years", "1 h 30 min", "inf"])
def test_text_that_is_not_one_number_and_one_unit_is_no_duration(text: str) -> None:
    """Any other text is refused."""
    with pytest.raises(ValueError, match="not a"):
        parse_duration(text)


@given(st.integers(1, 1 << 16), st.sampled_from([10, 20, 30, 40]))
def test_written_size_is_read_as_the_same_number(number: int, shift: int) -> None:
    """`size` reads the same number of bytes from the text of `format_bytes`."""
    assert parse_bytes(format_bytes(number << shift)) == number << shift
