"""List the units of `map` that failed, as lines and as rows of a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.agent.file_names import printable
from onebox.units.results import UnitResult, of_units

if TYPE_CHECKING:
    from onebox.units.plan import Unit

HEAD = ("unit", "parameters", "ended", "time", "last line")
# So many rows are shown.
MOST = 20
# Of the parameters of a unit, and of its last line, so many characters are shown.
LONGEST = 80


def lines(
    names: Sequence[str],
    units: Iterable[Unit],
    results: Mapping[int, UnitResult],
    most: int = MOST,
) -> list[str]:
    """
    Return a line for each of the first failed units, and one with the number of others.

    See `rows` for the arguments.
    """
    units = list(units)
    found = []
    for number, parameters, ended, time, last in rows(names, units, results, most):
        unit = f"unit {number} ({parameters})" if parameters else f"unit {number}"
        found.append(f"{unit}: {ended}, {time}{': ' if last else ''}{last}")
    rest = more(names, units, results, most)
    return [*found, rest] if rest else found


def rows(
    names: Sequence[str],
    units: Iterable[Unit],
    results: Mapping[int, UnitResult],
    most: int = MOST,
) -> list[tuple[str, ...]]:
    """
    Return a row of texts, as `HEAD` names them, for each of the first failed units.

    The units are in the order of their numbers. A unit that is left has not failed.

    Args:
        names: The names of the parameters.

        most: The number of rows; `more` names the rest.
    """
    found = _failed(names, units, results)[:most]
    return [_row(names, unit, result) for unit, result in found]


def more(
    names: Sequence[str],
    units: Iterable[Unit],
    results: Mapping[int, UnitResult],
    most: int = MOST,
) -> str:
    """Return how many failed units `rows` leaves out: "and 130 more", or ""."""
    rest = len(_failed(names, units, results)) - most
    return f"and {rest:,} more" if rest > 0 else ""


def _failed(
    names: Sequence[str], units: Iterable[Unit], results: Mapping[int, UnitResult]
) -> list[tuple[Unit, UnitResult]]:
    ordered = sorted(units, key=lambda unit: unit.number)
    own = of_units(names, ordered, results)
    pairs = [(unit, own[unit.number]) for unit in ordered if unit.number in own]
    return [(unit, result) for unit, result in pairs if not result.ok]


def _row(names: Sequence[str], unit: Unit, result: UnitResult) -> tuple[str, ...]:
    return (
        str(unit.number),
        _cut(printable(unit.describe(names))),
        result.describe(),
        formatting.seconds(result.seconds),
        _cut(result.last),
    )


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
