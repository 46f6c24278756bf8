"""How numbers, times and names are written for people."""

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


def test_examples() -> None:
    """
    What the docstrings show is so.
    """
    done = doctest.testmod(formatting)

    assert done.attempted >= 7
    assert 0 == done.failed


class TestSize:
    @given(amounts)
    def test_is_close(self, count: float) -> None:
        """
        What is written is within a twentieth of what it is, in few characters.
        """
        text = formatting.byte_count(count)
        number, unit = text.split(" ")
        value = float(number.replace(",", "")) * 1024 ** UNITS[unit]

        assert abs(value - count) <= max(count / 20, 0.5)
        assert value < 1000 * 1024 ** UNITS[unit] or unit == "PB"

    @given(amounts, amounts)
    def test_order(self, one: float, other: float) -> None:
        """
        More bytes are never written as fewer.
        """
        values = []
        for count in sorted((one, other)):
            number, unit = formatting.byte_count(count).split(" ")
            values.append((UNITS[unit], float(number.replace(",", ""))))

        assert values == sorted(values)


class TestSeconds:
    @given(st.floats(0, 1e7))
    def test_is_close(self, count: float) -> None:
        """
        What is written is the duration, to a tenth below ten seconds, else to one.
        """
        value = _seconds(formatting.seconds(count))

        assert abs(value - count) <= (0.0501 if count < 9.95 else 0.5)

    @given(st.floats(0, 1e6), st.floats(0, 1e6))
    def test_order(self, one: float, other: float) -> None:
        """
        A longer time is never written as a shorter one.
        """
        first, second = sorted((one, other))

        assert _seconds(formatting.seconds(first)) <= _seconds(
            formatting.seconds(second)
        )

    @given(st.floats(0, 1e6))
    def test_no_sixty(self, count: float) -> None:
        """
        Minutes and seconds end at 59.
        """
        text = formatting.seconds(count)
        parts = re.findall(r"\d+", text.partition(" ")[0].partition(".")[0])

        assert all(int(part) < 60 for part in parts[1:])
        # Hours may be as many as they are.
        assert len(parts) == 3 or not text.startswith("60")


class TestMoney:
    @given(st.floats(0, 1e9))
    def test_is_close(self, dollars: float) -> None:
        """
        What is written is the amount, to the cent or to four digits below one.
        """
        text = formatting.money(dollars)
        value = float(text.lstrip("<$").replace(",", ""))

        assert abs(value - dollars) <= (0.0001 if dollars < 0.01 else 0.005 + 1e-6)

    @given(st.floats(0, 1e9, exclude_min=True))
    def test_something_is_not_nothing(self, dollars: float) -> None:
        """
        What costs something is never written as nothing, or as unknown.
        """
        text = formatting.money(dollars)

        assert "?" not in text
        assert re.search("[1-9]", text)

    @given(st.none() | st.floats(0, 1e6))
    def test_rate(self, dollars: float | None) -> None:
        """
        A price an hour says so, unless there is nothing to pay.
        """
        text = formatting.rate(dollars)

        assert text == (
            "no charge" if dollars == 0 else f"{formatting.money(dollars)}/h"
        )


class TestPath:
    @given(st.binary() | st.text(st.characters()))
    def test_no_control_characters(self, name: bytes | str) -> None:
        """
        No name, of whatever bytes, can move a cursor or turn the writing around.
        """
        for character in formatting.path(name):
            assert unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp")

    @given(st.binary())
    def test_can_be_written(self, name: bytes) -> None:
        """
        Every name can be printed on a UTF-8 terminal.
        """
        formatting.path(name).encode("utf-8")

    @given(st.text(st.characters(categories=("L", "N", "P")), min_size=1))
    def test_ordinary_names(self, name: str) -> None:
        """
        An ordinary name is shown as it is.
        """
        assert name == formatting.path(name) == formatting.path(name.encode())


class TestClock:
    NOW = time.mktime((2026, 11, 5, 12, 0, 0, 0, 0, -1))

    def test_today(self) -> None:
        """
        A moment of today is its time of day.
        """
        assert "18:40" == formatting.clock(self.NOW + 6 * 3600 + 2400, self.NOW)
        assert "00:05" == formatting.clock(self.NOW - 12 * 3600 + 300, self.NOW)

    def test_another_day(self) -> None:
        """
        Any other moment has its day, too, also at the same time of day.
        """
        assert "6 Nov 01:00" == formatting.clock(self.NOW + 13 * 3600, self.NOW)
        assert formatting.clock(self.NOW + 365 * 86400, self.NOW).startswith("5 Nov")


class TestSome:
    @given(st.lists(st.text("abc", min_size=1), max_size=12), st.integers(1, 5))
    def test_accounts_for_all(self, names: list[str], limit: int) -> None:
        """
        Every name is either shown or counted.
        """
        text = formatting.first_names(names, limit)
        shown, _, rest = text.partition(" and ")
        listed = shown.split(", ") if shown else []

        assert names[:limit] == listed
        assert len(names) - len(listed) == (int(rest.split()[0]) if rest else 0)


def _seconds(text: str) -> float:
    number = text.partition(" ")[0]
    if ":" not in number:
        return float(number)
    value = 0
    for part in number.split(":"):
        value = value * 60 + int(part)
    return value
