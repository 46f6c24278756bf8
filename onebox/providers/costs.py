"""The cost of a box has parts, each with a label and a price in USD an hour."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

MACHINE = "machine"
ADDRESS = "public IPv4"

# Clouds convert a monthly price to an hourly one with this number of hours.
HOURS_A_MONTH = 730


@dataclass(frozen=True)
class Cost:
    """One part of the price of a box; *hourly* (USD) is None if it is unknown."""

    label: str
    hourly: float | None


def disk(gib: float, hourly: float | None) -> Cost:
    """
    Return the cost of a disk, with its size in the label.

    >>> disk(100, 0.01)
    Cost(label='100 GB disk', hourly=0.01)
    """
    return Cost(f"{gib:.0f} GB disk", hourly)


def is_disk(cost: Cost) -> bool:
    """Return whether a cost is for a disk, which is billed also for a stopped box."""
    return cost.label.endswith(" disk")


def total(parts: Iterable[float | None]) -> float | None:
    """
    Return the sum of the prices in *parts*, None if one of them is None.

    >>> total([1.0, 0.5]), total([1.0, None]), total([])
    (1.5, None, 0.0)
    """
    known = list(parts)
    return None if None in known else sum((part for part in known if part), 0.0)


def to_text(costs: Iterable[Cost]) -> str:
    """
    Return costs as one text, which fits into a tag.

    >>> to_text([disk(100, 0.01), Cost("public IPv4", None)])
    '100 GB disk=0.01/public IPv4='
    """
    return "/".join(
        f"{cost.label}={'' if cost.hourly is None else repr(cost.hourly)}"
        for cost in costs
    )


def from_text(text: str) -> tuple[Cost, ...]:
    """
    Return the costs that `to_text` wrote; a price that is not valid becomes None.

    >>> from_text("8 GB disk=0.01/public IPv4=")
    (Cost(label='8 GB disk', hourly=0.01), Cost(label='public IPv4', hourly=None))
    >>> from_text("disk=nan/x"), from_text("")
    ((Cost(label='disk', hourly=None), Cost(label='x', hourly=None)), ())
    """
    pairs = [part.partition("=") for part in text.split("/") if part]
    return tuple(Cost(label, _number(hourly)) for label, _, hourly in pairs)


def from_json(value: object) -> tuple[Cost, ...]:
    """
    Return the costs in *value*, a list that was parsed from JSON.

    An item that is not a JSON object is left out.

    >>> from_json([{"label": "disk", "hourly": 0.01}, "x"])
    (Cost(label='disk', hourly=0.01),)
    """
    rows = value if isinstance(value, (list, tuple)) else ()
    return tuple(
        Cost(str(row.get("label", "")), _number(row.get("hourly")))
        for row in rows
        if isinstance(row, Mapping)
    )


def _number(value: object) -> float | None:
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if 0 <= number < float("inf") else None
