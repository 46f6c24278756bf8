"""Print the machine types that fit the size, with their prices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.boxes import offers
from onebox.errors import Unsuitable, UsageError
from onebox.providers.values import Offer

if TYPE_CHECKING:
    from onebox.context import BoxContext


@dataclass(frozen=True)
class ListedOffer:
    """
    An offer as `inv offers` prints it.

    *memory* is in bytes. Prices are in USD an hour, None if they are unknown:
    *machine_usd* is for the machine alone, *hourly_usd* for all parts, *on_demand_usd*
    for all parts on demand. *at_most_usd* is the cost until the deadline. *refused* is
    the reason why the limits refuse the offer, "" if they allow it.
    """

    type: str
    place: str
    cpus: int
    memory: int
    arch: str
    spot: bool
    machine_usd: float | None
    hourly_usd: float | None
    on_demand_usd: float | None
    at_most_usd: float | None
    refused: str


def perform(context: BoxContext, limit: str) -> None:
    """
    Print the offers for the requested size, in the order in which they are tried.

    Args:
        limit: The number of offers to print; "0" means all.

    Raises:
        UsageError: *limit* is not a number, or no offer fits.
    """
    if not limit.isdecimal():
        raise UsageError(f"--limit={limit}: expected a number", next="inv offers")
    found = [_listed(context, offer) for offer in offers.find(context)]
    shown = found[: int(limit) or None]
    if context.screen.json:
        fields = {
            "provider": context.provider.name,
            "size": context.settings.size.name,
            "hours": context.settings.limits.max_hours,
            "offers": shown,
            "total": len(found),
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


def _listed(context: BoxContext, offer: Offer) -> ListedOffer:
    refused = ""
    try:
        offers.check_price(context, offer)
    except Unsuitable as error:
        refused = error.cause
    hourly, hours = offer.hourly, context.settings.limits.max_hours
    return ListedOffer(
        type=offer.type,
        place=offer.place,
        cpus=offer.cpus,
        memory=offer.memory,
        arch=offer.arch,
        spot=offer.spot,
        machine_usd=offer.machine_price,
        hourly_usd=hourly,
        on_demand_usd=offer.hourly_on_demand,
        at_most_usd=None if hourly is None else hourly * hours,
        refused=refused,
    )


def _row(offer: ListedOffer) -> tuple[str, ...]:
    saved = ""
    if offer.spot and offer.on_demand_usd and offer.hourly_usd is not None:
        saved = f" -{100 * (1 - offer.hourly_usd / offer.on_demand_usd):.0f} %"
    return (
        offer.type,
        f"{offer.cpus}",
        formatting.byte_count(offer.memory),
        f"spot{saved}" if offer.spot else "",
        formatting.rate(offer.machine_usd),
        formatting.rate(offer.hourly_usd),
        formatting.money(offer.at_most_usd),
        offer.place,
        f"refused: {offer.refused}" if offer.refused else "",
    )
