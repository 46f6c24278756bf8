"""Write the table of all units of `map`, and how each of them ended, as a CSV file."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from onebox.agent.file_names import raw
from onebox.store.atomic_files import disk_errors, not_ours_error, write_atomically
from onebox.units.results import UnitResult, of_units

if TYPE_CHECKING:
    from onebox.units.plan import Unit

FIRST = "unit"
# The columns after the parameters.
LAST = (
    *("state", "exit", "cause", "seconds", "cpu_seconds", "memory_peak"),
    *("attempts", "started", "outputs"),
)


def write(
    path: Path,
    names: Sequence[str],
    units: Iterable[Unit],
    results: Mapping[int, UnitResult],
) -> None:
    """
    Write the table, one line a unit in the order of the numbers.

    *memory_peak* is in bytes, *started* is a time in UTC as in ISO 8601. What is
    unknown is empty. The values are not changed for a spreadsheet: one that begins with
    "=" is a formula there.

    Args:
        names: The names of the parameters. If one of them is the name of a column too,
            such as "state", that column is called "unit_state".

    Raises:
        StateError: The file cannot be written, or its folder is a link.
    """
    ordered = sorted(units, key=lambda unit: unit.number)
    own = of_units(names, ordered, results)
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    # Older versions of Python do not quote a carriage return, which ends a line.
    quoting = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    table.writerow(_head(names))
    for unit in ordered:
        line: list[object] = [
            unit.number,
            *unit.values,
            *_ending(own.get(unit.number)),
            unit.outputs,
        ]
        has_return = any("\r" in value for value in (*unit.values, unit.outputs))
        (quoting if has_return else table).writerow(line)
    with disk_errors(path):
        # The folder was fetched from a box, so it may have become a link.
        if path.parent.is_symlink():
            raise not_ours_error(path.parent, "folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, raw(text.getvalue()), mode=0o644)


def _head(names: Sequence[str]) -> list[str]:
    head = [FIRST, *names]
    for name in LAST:
        while name in head:
            name = f"{FIRST}_{name}"
        head.append(name)
    return head


def _ending(result: UnitResult | None) -> list[object]:
    """Return the columns from *state* to *started*; None is written as nothing."""
    if result is None:
        return ["left", *[None] * 7]
    return [
        "done" if result.ok else "failed",
        result.code,
        result.cause,
        result.seconds,
        result.cpu_seconds,
        result.memory_peak,
        result.attempts,
        _utc(result.started),
    ]


def _utc(moment: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment)) if moment else ""
