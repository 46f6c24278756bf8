"""
The last prices that were known, for when the provider's list cannot be read.

They lie in the state directory, a file for each provider, with the moment of each.
A price is written when it was read from the provider, and used only while it is
young: a month on demand, a day on spot, whose prices change.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onebox.providers.base import Offer
from onebox.providers.costs import Cost
from onebox.store.atomic_files import private_dir, write_atomically
from onebox.store.box_store import state_dir

if TYPE_CHECKING:
    from onebox.context import BoxContext

DAY = 86400.0
LASTS = {False: 30 * DAY, True: DAY}


def complete(context: BoxContext, sizes: Sequence[Offer]) -> list[Offer]:
    """Return sizes with the last known price where there is none now; keep the new."""
    path = _path(context)
    known, now = _read(path), time.time()
    found = [_filled(size, known, now) for size in sizes]
    fresh = {key: row for size in sizes for key, row in _rows(size, now).items()}
    if fresh:
        young = {k: row for k, row in known.items() if _age(row, now) < LASTS[False]}
        # Without the file nothing is wrong but that there is no last price.
        with suppress(OSError):
            private_dir(path.parent)
            write_atomically(path, json.dumps({**young, **fresh}).encode())
    return found


def _filled(size: Offer, known: dict[str, Any], now: float) -> Offer:
    moments = [0.0]

    def last(label: str, price: float | None, *, spot: bool) -> float | None:
        row = known.get(_key(size, label, spot=spot))
        if price is not None or row is None or _age(row, now) > LASTS[spot]:
            return price
        moments.append(float(row["at"]))
        return float(row["price"])

    spot = size.spot
    return replace(
        size,
        price=last("machine", size.price, spot=spot),
        on_demand=last("machine", size.on_demand, spot=False),
        extras=tuple(
            Cost(one.label, last(one.label, one.hourly, spot=False))
            for one in size.extras
        ),
        # The oldest one counts.
        priced=min((at for at in moments if at), default=size.priced),
    )


def _rows(size: Offer, now: float) -> dict[str, Any]:
    prices = {
        _key(size, "machine", spot=size.spot): size.price,
        _key(size, "machine", spot=False): size.on_demand,
        **{_key(size, one.label, spot=False): one.hourly for one in size.extras},
    }
    # What costs nothing is no price to be remembered.
    return {key: {"price": price, "at": now} for key, price in prices.items() if price}


def _key(size: Offer, label: str, *, spot: bool) -> str:
    if label != "machine":
        return f"{label}, {size.place}, {size.type}, {size.spot}"
    return f"{size.type}, {size.place}, {'spot' if spot else 'on demand'}"


def _age(row: dict[str, Any], now: float) -> float:
    # One from a clock that was ahead is as good as new.
    return max(now - float(row["at"]), 0.0)


def _read(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        told = json.loads(path.read_bytes())
        if isinstance(told, dict):
            return {k: row for k, row in told.items() if _is_row(row)}
    return {}


def _is_row(row: object) -> bool:
    return isinstance(row, dict) and all(
        isinstance(row.get(name), (int, float)) and row[name] > 0
        for name in ("price", "at")
    )


def _path(context: BoxContext) -> Path:
    return state_dir(context.environ) / "prices" / f"{context.provider.name}.json"
