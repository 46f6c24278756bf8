"""
Store the last known prices, for use when a provider's price list cannot be read.

The prices are kept in the state directory, in one file for each provider. Each price
has the time at which it was read. An on-demand price is used for a month, a spot price
for a day.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onebox.providers.costs import MACHINE, Cost
from onebox.providers.values import Offer
from onebox.store.atomic_files import private_dir, write_atomically
from onebox.store.paths import state_dir

if TYPE_CHECKING:
    from onebox.context import BoxContext

DAY = 86400.0
# A stored price is used for this many seconds. The key True is for spot prices.
LIFETIMES = {False: 30 * DAY, True: DAY}


def complete(context: BoxContext, offers: Sequence[Offer]) -> list[Offer]:
    """
    Return *offers* with the missing prices filled in from the cache.

    The prices that *offers* have are stored in the cache.
    """
    path = _path(context)
    stored, now = _read(path), time.time()
    completed = [_fill_in(offer, stored, now) for offer in offers]
    fresh = {key: row for offer in offers for key, row in _rows(offer, now).items()}
    if fresh:
        kept = {
            key: row for key, row in stored.items() if _age(row, now) < LIFETIMES[False]
        }
        # The cache is optional: a full disk must not fail the command.
        with suppress(OSError):
            private_dir(path.parent)
            write_atomically(path, json.dumps({**kept, **fresh}).encode())
    return completed


def _fill_in(offer: Offer, stored: dict[str, Any], now: float) -> Offer:
    """Return an offer with its missing prices replaced by stored ones."""
    moments: list[float] = []

    def price_of(label: str, price: float | None, *, spot: bool) -> float | None:
        row = stored.get(_key(offer, label, spot=spot))
        if price is not None or row is None or _age(row, now) > LIFETIMES[spot]:
            return price
        moments.append(float(row["at"]))
        return float(row["price"])

    return replace(
        offer,
        machine_price=price_of(MACHINE, offer.machine_price, spot=offer.spot),
        machine_on_demand=price_of(MACHINE, offer.machine_on_demand, spot=False),
        extras=tuple(
            Cost(extra.label, price_of(extra.label, extra.hourly, spot=False))
            for extra in offer.extras
        ),
        # The offer's time is that of the oldest price taken from the cache.
        priced=min(moments, default=offer.priced),
    )


def _rows(offer: Offer, now: float) -> dict[str, Any]:
    """Return a cache row for each known price of an offer; `_key` makes the keys."""
    prices = {
        _key(offer, MACHINE, spot=offer.spot): offer.machine_price,
        _key(offer, MACHINE, spot=False): offer.machine_on_demand,
        **{_key(offer, e.label, spot=False): e.hourly for e in offer.extras},
    }
    # Neither an unknown price (None) nor "no charge" (0) is stored.
    return {key: {"price": price, "at": now} for key, price in prices.items() if price}


def _key(offer: Offer, label: str, *, spot: bool) -> str:
    if label != MACHINE:
        return f"{label}, {offer.place}, {offer.type}, {offer.spot}"
    return f"{offer.type}, {offer.place}, {'spot' if spot else 'on demand'}"


def _age(row: dict[str, Any], now: float) -> float:
    # A price with a time in the future was stored while the clock was wrong. It is
    # treated as new.
    return max(now - float(row["at"]), 0.0)


def _read(path: Path) -> dict[str, Any]:
    """Return the valid rows of a cache file; {} if it is missing or damaged."""
    with suppress(OSError, ValueError):
        rows = json.loads(path.read_bytes())
        if isinstance(rows, dict):
            return {key: row for key, row in rows.items() if _is_row(row)}
    return {}


def _is_row(row: object) -> bool:
    return isinstance(row, dict) and all(
        isinstance(row.get(name), (int, float)) and row[name] > 0
        for name in ("price", "at")
    )


def _path(context: BoxContext) -> Path:
    return state_dir(context.environ) / "prices" / f"{context.provider.name}.json"
