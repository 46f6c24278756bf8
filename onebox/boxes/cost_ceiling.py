"""What a box may cost at most until its deadline, part by part."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.providers.base import Offer

if TYPE_CHECKING:
    from onebox.context import BoxContext


def lines(
    context: BoxContext, size: Offer, deadline: float, others: Sequence[Offer] = ()
) -> list[str]:
    """
    Return the lines below a headline: the ceiling, its parts, and unknown prices.

    Args:
        others: What may be had instead if there is no room for this one.
    """
    now = context.now()
    hours = max(deadline - now, 0) / 3600
    off = f"powers itself off at {formatting.clock(deadline, now)}"
    if size.price == 0:
        return [f"{off}, whatever happens here"]
    worst = formatting.money(_times(size.hourly, hours))
    if context.provider.stopped_is_free:
        instead = _instead(size, others, hours)
        first = f"at most {worst}{instead}: {off}, whatever happens here"
    else:
        instead = _instead(size, others, hours)
        first = f"{worst}{instead} until then: {off}, but is billed until it is removed"
    found = [first, _parts(context, size, hours)]
    if size.hourly is None:
        found.append(f"$? is not known: {why_unknown(context)}")
    elif size.priced:
        age = formatting.age(time.time() - size.priced)
        found.append(f"prices are {age} old: {why_unknown(context)}")
    return found


def why_unknown(context: BoxContext) -> str:
    """Say why a price is not known now."""
    return context.provider.unpriced or "the price list does not name it"


def _instead(size: Offer, others: Sequence[Offer], hours: float) -> str:
    """Say what the dearest candidate costs, which a box may be in the end."""
    rates = [one.hourly for one in others]
    if size.hourly is None or not rates:
        return ""
    known = [rate for rate in rates if rate is not None]
    if len(known) < len(rates):
        return ", or $? on another type"
    dearest = max(known)
    if dearest <= size.hourly:
        return ""
    return (
        f", or {formatting.money(dearest * hours)} if only a dearer type is available"
    )


def _parts(context: BoxContext, size: Offer, hours: float) -> str:
    costs = [
        f"{p.label} {formatting.money(_times(p.hourly, hours))}" for p in size.parts
    ]
    text = ", ".join(costs)
    rate = context.provider.egress_rate(size.place)
    if rate != 0:
        text += f"; outputs {formatting.money(rate)} a GB at most"
    stopped = size.hourly_stopped
    if stopped != 0 and context.provider.stopped_is_free:
        text += f"; off, its disk {formatting.rate(stopped)} until inv teardown"
    return text


def _times(rate: float | None, hours: float) -> float | None:
    return None if rate is None else rate * hours
