"""Run ways of doing one thing in turn, and compare their medians."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Way:
    """
    One way of doing something: *work* is timed, *before* is not.

    If *work* returns a number, that is the measurement instead of the time.
    """

    name: str
    work: Callable[[], float | None]
    before: Callable[[], object] = lambda: None


@dataclass(frozen=True)
class Row:
    """
    What one case came to: the medians of ours and of the peer's.

    *beside* is shown with it, such as what the whole command took.
    """

    case: str
    what: str
    against: str
    ours: float
    theirs: float
    target: float
    unit: str = "s"
    beside: Sequence[tuple[str, float]] = field(default_factory=tuple)
    more_is_better: bool = False

    @property
    def ratio(self) -> float:
        """Ours over theirs, or over what is wanted where that is no peer."""
        return self.ours / self.theirs if self.theirs else float("inf")

    @property
    def reached(self) -> bool:
        """Tell whether the target is reached."""
        if self.more_is_better:
            return self.ratio >= self.target
        return self.ratio <= self.target


def alternately(rounds: int, ways: Sequence[Way]) -> list[float]:
    """Return each way's median over some rounds; each round turns the order."""
    taken: list[list[float]] = [[] for _ in ways]
    for count in range(rounds):
        order = range(len(ways)) if count % 2 == 0 else range(len(ways))[::-1]
        for at in order:
            way = ways[at]
            way.before()
            began = time.perf_counter()
            told = way.work()
            spent = time.perf_counter() - began
            taken[at].append(spent if told is None else told)
            if rounds < 10:
                say(f"    {way.name:<28} {taken[at][-1]:9.3f}")
    return [statistics.median(values) for values in taken]


def say(text: str) -> None:
    """Tell on stderr how far things have got."""
    print(text, file=sys.stderr, flush=True)


def table(rows: Sequence[Row]) -> str:
    """Lay the rows out as a Markdown table that can be read as it is."""
    cells = [("case", "against", "onebox", "peer", "ratio", "target", "", "beside")]
    for row in rows:
        sign = "≥" if row.more_is_better else "≤"
        cells.append(
            (
                f"`{row.case}` {row.what}",
                row.against,
                number(row.ours, row.unit),
                number(row.theirs, row.unit),
                f"{row.ratio:.2f}",
                f"{sign} {row.target:g}",
                "✓" if row.reached else "✗",
                ", ".join(f"{name} {number(v, row.unit)}" for name, v in row.beside),
            )
        )
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths)) + " |"
        for line in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)


def number(value: float, unit: str) -> str:
    """Write a measurement with as many digits as mean anything."""
    digits = 0 if value >= 1000 else 2 if value >= 1 else 3
    return f"{value:,.{digits}f} {unit}"
