"""Numbers, times and names as they are written for people."""

from __future__ import annotations

import doctest
import re
import time
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from onebox import formatting

UNITS = {"B": 0, "kB": 1, "MB": 2, "GB": 3, "TB": 4, "PB": 5}
amounts = st.integers(0, 2**60) | st.floats(0, 2**60)


def test_examples_in_the_docstrings_are_correct() -> None:
    """The doctests of the module pass."""
    done = doctest.testmod(formatting)

    assert done.attempted >= 7
    assert 0 == done.failed


class TestSize:
    @given(amounts)
    def test_size_is_written_within_a_twentieth(self, count: float) -> None:
        """The text is short, and within a twentieth of the number."""
        text = formatting.byte_count(count)
        number, unit = text.split(" ")
        value = float(number.replace(",", "")) * 1024 ** UNITS[unit]

        assert abs(value - count) <= max(count / 20, 0.5)
        assert value < 1000 * 1024 ** UNITS[unit] or unit == "PB"

    @given(amounts, amounts)
    def test_more_bytes_are_never_written_as_fewer(
        self, one: float, other: float
    ) -> None:
        """The order of sizes is kept."""
        values = []
        for count in sorted((one, other)):
            number, unit = formatting.byte_count(count).split(" ")
            values.append((UNITS[unit], float(number.replace(",", ""))))

        assert values == sorted(values)


class TestSeconds:
    @given(st.floats(0, 1e7))
    def test_duration_is_written_to_a_tenth_or_to_a_second(self, count: float) -> None:
        """
        A duration below ten seconds is written to a tenth, below an hour to a
        second, and a longer one to a minute.
        """
        value = _seconds(formatting.seconds(count))

        precision = 0.0501 if count < 9.95 else 0.5 if count < 3599.5 else 30
        assert abs(value - count) <= precision

    @given(st.floats(0, 1e6), st.floats(0, 1e6))
    def test_longer_time_is_never_written_as_shorter(
        self, one: float, other: float
    ) -> None:
        """The order of durations is kept."""
        first, second = sorted((one, other))

        assert _seconds(formatting.seconds(first)) <= _seconds(
            formatting.seconds(second)
        )

    @given(st.floats(0, 1e6))
    def test_minutes_and_seconds_end_at_59(self, count: float) -> None:
        """No part of a time after the first is 60; the first may be any hours."""
        *_, last = re.findall(r"\d+", formatting.seconds(count).partition(".")[0])

        assert int(last) < 60


class TestMoney:
    @given(st.floats(0, 1e9))
    def test_money_is_written_to_the_cent(self, dollars: float) -> None:
        """An amount is written to the cent; below a dollar it has four digits."""
        text = formatting.money(dollars)
        value = float(text.lstrip("<$").replace(",", ""))

        assert abs(value - dollars) <= (0.0001 if dollars < 0.01 else 0.005 + 1e-6)

    @given(st.floats(0, 1e9, exclude_min=True))
    def test_small_amount_is_never_written_as_zero(self, dollars: float) -> None:
        """An amount above 0 is written neither as nothing nor as unknown."""
        text = formatting.money(dollars)

        assert "?" not in text
        assert re.search("[1-9]", text)

    @given(st.none() | st.floats(0, 1e6))
    def test_price_per_hour_has_its_unit(self, dollars: float | None) -> None:
        """A price of 0 has none."""
        text = formatting.rate(dollars)

        assert text == (
            "no charge" if dollars == 0 else f"{formatting.money(dollars)}/h"
        )


class TestPath:
    @given(st.binary() | st.text(st.characters()))
    def test_name_is_written_without_control_characters(
        self, name: bytes | str
    ) -> None:
        """No name can move the cursor or change the direction of the text."""
        for character in formatting.path(name):
            assert unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp")

    @given(st.binary())
    def test_any_name_can_be_printed_as_utf_8(self, name: bytes) -> None:
        """The text can be encoded."""
        formatting.path(name).encode("utf-8")

    @given(st.text(st.characters(categories=("L", "N", "P")), min_size=1))
    def test_ordinary_name_is_written_unchanged(self, name: str) -> None:
        """A name without special characters stays as it is."""
        assert name == formatting.path(name) == formatting.path(name.encode())


class TestClock:
    NOW = time.mktime((2026, 11, 5, 12, 0, 0, 0, 0, -1))

    def test_moment_of_today_is_written_as_its_time(self) -> None:
        """The day is left out."""
        assert "18:40" == formatting.clock(self.NOW + 6 * 3600 + 2400, self.NOW)
        assert "00:05" == formatting.clock(self.NOW - 12 * 3600 + 300, self.NOW)

    def test_moment_of_another_day_is_written_with_its_day(self) -> None:
        """A moment of another day has its day, even at the same time of day."""
        assert "6 Nov 01:00" == formatting.clock(self.NOW + 13 * 3600, self.NOW)
        assert formatting.clock(self.NOW + 365 * 86400, self.NOW).startswith("5 Nov")


class TestShortenedList:
    @given(st.lists(st.text("abc", min_size=1), max_size=12), st.integers(1, 5))
    def test_every_name_is_shown_or_counted(self, names: list[str], limit: int) -> None:
        """The first names are shown, and the rest is counted."""
        text = formatting.first_names(names, limit)
        shown, _, rest = text.partition(" and ")
        listed = shown.split(", ") if shown else []

        assert names[:limit] == listed
        assert len(names) - len(listed) == (int(rest.split()[0]) if rest else 0)


def _seconds(text: str) -> float:
    """Return the seconds that a written duration stands for."""
    units = {"h": 3600, "min": 60, "s": 1}
    words = text.split(" ")
    pairs = zip(words[::2], words[1::2])
    return sum(float(number) * units[unit] for number, unit in pairs)
