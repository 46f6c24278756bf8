"""Run several ways of doing one thing alternately, and compare their medians."""

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

    A number that *work* returns is used instead of the time.
    """

    name: str
    work: Callable[[], float | None]
    before: Callable[[], object] = lambda: None


@dataclass(frozen=True)
class Row:
    """
    The result of one case: the medians of onebox and of its peer.

    *beside* are further measurements to show, such as that of the whole command.
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
        """Return onebox divided by the peer, or by a fixed limit."""
        return self.ours / self.theirs if self.theirs else float("inf")

    @property
    def reached(self) -> bool:
        """Return whether the target is reached."""
        if self.more_is_better:
            return self.ratio >= self.target
        return self.ratio <= self.target


def alternately(rounds: int, ways: Sequence[Way]) -> list[float]:
    """Return the median of each way; each round reverses the order."""
    values: list[list[float]] = [[] for _ in ways]
    for count in range(rounds):
        order = range(len(ways)) if count % 2 == 0 else range(len(ways))[::-1]
        for at in order:
            way = ways[at]
            way.before()
            began = time.perf_counter()
            value = way.work()
            spent = time.perf_counter() - began
            values[at].append(spent if value is None else value)
            if rounds < 10:
                log(f"    {way.name:<28} {values[at][-1]:9.3f}")
    return [statistics.median(measured) for measured in values]


def log(text: str) -> None:
    """Print progress to stderr."""
    print(text, file=sys.stderr, flush=True)


def table(rows: Sequence[Row]) -> str:
    """Return the rows as an aligned Markdown table."""
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
    """Return a measurement with its significant digits and unit."""
    digits = 0 if value >= 1000 else 2 if value >= 1 else 3
    return f"{value:,.{digits}f} {unit}"
