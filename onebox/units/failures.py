"""List the units of `map` that failed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.agent.file_names import printable
from onebox.units.results import UnitResult, of_units

if TYPE_CHECKING:
    from onebox.units.plan import Unit

# So many units are listed.
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

    The units are in the order of their numbers. A unit that is left has not failed.

    Args:
        names: The names of the parameters.

        most: The number of units that have a line.
    """
    ordered = sorted(units, key=lambda unit: unit.number)
    own = of_units(names, ordered, results)
    failed = [
        unit for unit in ordered if unit.number in own and not own[unit.number].ok
    ]
    found = [_line(names, unit, own[unit.number]) for unit in failed[:most]]
    rest = len(failed) - most
    return [*found, f"and {rest:,} more"] if rest > 0 else found


def _line(names: Sequence[str], unit: Unit, result: UnitResult) -> str:
    parameters = _cut(printable(unit.describe(names)))
    named = (
        f"unit {unit.number} ({parameters})" if parameters else f"unit {unit.number}"
    )
    text = f"{named}: {result.describe()}, {formatting.seconds(result.seconds)}"
    last = _cut(result.last)
    return f"{text}: {last}" if last else text


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
