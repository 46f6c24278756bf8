"""Print the machine types that fit the size, with their prices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.boxes import offers, priced_offer
from onebox.boxes.priced_offer import PricedOffer
from onebox.errors import UsageError

if TYPE_CHECKING:
    from onebox.context import BoxContext


def perform(context: BoxContext, limit: str) -> tuple[PricedOffer, ...]:
    """
    Print the offers for the requested size, in the order in which they are tried.

    If Python code has called onebox, they are returned without being printed.

    Args:
        limit: The number of offers to print; "0" means all.

    Raises:
        UsageError: *limit* is not a number, or no offer fits.
    """
    most = formatting.whole_number(limit)
    if most is None:
        raise UsageError(
            f"--limit: expected a number of offers, got {limit!r}",
            next=f"inv offers --limit=20{' --json' * context.screen.json}",
        )
    found = tuple(priced_offer.of(context, offer) for offer in offers.find(context))
    shown = found[: most or None]
    if not context.invocation.from_python:
        _print(context, found, shown)
    return shown


def _print(
    context: BoxContext, found: Sequence[PricedOffer], shown: Sequence[PricedOffer]
) -> None:
    if context.screen.json:
        fields = {
            "provider": context.provider.name,
            "size": context.settings.size.name,
            "max_hours": context.settings.limits.max_hours,
            "offers": shown,
            "count": len(found),
        }
        context.screen.print_json("offers", fields)
        return
    hours = f"{context.settings.limits.max_hours:g} h"
    head = ("type", "vCPU", "memory", "", "machine", "in all", hours, "place", "")
    context.screen.table(head, [_row(offer) for offer in shown])
    if len(found) > len(shown):
        rest = formatting.count(len(found) - len(shown), "more offer")
        context.screen.note(f"{rest}; --limit=0 prints all")
    if any(offer.hourly_usd is None for offer in shown):
        context.screen.note(f"$? is not known: {offers.why_unpriced(context)}")


def _row(offer: PricedOffer) -> tuple[str, ...]:
    saved = ""
    if offer.spot and offer.on_demand_hourly_usd and offer.hourly_usd is not None:
        saved = f" -{100 * (1 - offer.hourly_usd / offer.on_demand_hourly_usd):.0f} %"
    return (
        offer.type,
        f"{offer.cpus}",
        formatting.byte_count(offer.memory_bytes),
        f"spot{saved}" if offer.spot else "",
        formatting.rate(offer.machine_hourly_usd),
        formatting.rate(offer.hourly_usd),
        formatting.money(offer.at_most_usd),
        offer.place or "",
        f"refused: {offer.refused}" if offer.refused else "",
    )
