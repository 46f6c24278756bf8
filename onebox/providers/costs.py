"""What a box costs beside its machine: labelled parts, in USD an hour."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

MACHINE = "machine"
ADDRESS = "public IPv4"

# What clouds take a month for, when they bill by the month.
HOURS_A_MONTH = 730


@dataclass(frozen=True)
class Cost:
    """One part of what a box costs; *hourly* is None where it is not known."""

    label: str
    hourly: float | None


def disk(gib: float, hourly: float | None) -> Cost:
    """
    Return the cost of a disk; its label says how large it is.

    >>> disk(100, 0.01)
    Cost(label='100 GB disk', hourly=0.01)
    """
    return Cost(f"{gib:.0f} GB disk", hourly)


def is_disk(cost: Cost) -> bool:
    """Tell whether this is billed also while the box is off."""
    return cost.label.endswith(" disk")


def total(parts: Iterable[float | None]) -> float | None:
    """
    Return a sum, None if any part of it is not known.

    >>> total([1.0, 0.5]), total([1.0, None]), total([])
    (1.5, None, 0.0)
    """
    known = list(parts)
    return None if None in known else sum((one for one in known if one), 0.0)


def to_text(costs: Iterable[Cost]) -> str:
    """
    Write costs as one tag of a cloud object.

    >>> to_text([disk(100, 0.01), Cost("public IPv4", None)])
    '100 GB disk=0.01/public IPv4='
    """
    return "/".join(
        f"{one.label}={'' if one.hourly is None else repr(one.hourly)}" for one in costs
    )


def from_text(text: str) -> tuple[Cost, ...]:
    """
    Read costs from a tag; a part that cannot be read is not known.

    >>> from_text("8 GB disk=0.01/public IPv4=")
    (Cost(label='8 GB disk', hourly=0.01), Cost(label='public IPv4', hourly=None))
    >>> from_text("disk=nan/x"), from_text("")
    ((Cost(label='disk', hourly=None), Cost(label='x', hourly=None)), ())
    """
    pairs = [part.partition("=") for part in text.split("/") if part]
    return tuple(Cost(label, _number(hourly)) for label, _, hourly in pairs)


def from_json(told: object) -> tuple[Cost, ...]:
    """
    Read costs from JSON.

    >>> from_json([{"label": "disk", "hourly": 0.01}, "x"])
    (Cost(label='disk', hourly=0.01),)
    """
    rows = told if isinstance(told, (list, tuple)) else ()
    return tuple(
        Cost(str(one.get("label", "")), _number(one.get("hourly")))
        for one in rows
        if isinstance(one, Mapping)
    )


def _number(value: object) -> float | None:
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if 0 <= number < float("inf") else None
