"""Find the box that a command line would use or create, and its price, for a plan."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from onebox.boxes import announcement, offers, priced_offer
from onebox.boxes.priced_offer import PricedOffer
from onebox.errors import OneboxError, Unsuitable
from onebox.stages.plan_values import PlannedBox

if TYPE_CHECKING:
    from onebox.context import BoxContext
    from onebox.providers.values import Box, Offer

# This many other machine types are named.
_OTHER_TYPES = 3


def find(context: BoxContext, box: Box | None) -> tuple[PlannedBox, Unsuitable | None]:
    """
    Return the box, and the error if its price exceeds a limit.

    Args:
        box: The box that exists, None if there is none.

    Raises:
        OneboxError: The provider has no offer for the size.
    """
    limits = context.settings.limits
    exists = box is not None and box.state == "running" and not box.rescue
    refusal: Unsuitable | None = None
    others: list[Offer]
    if box is not None and exists:
        offer, others = box.offer, []
        deadline, priced = box.deadline, "when it was created"
        identity = box.identity
    else:
        offer, *others = offers.find(context)
        deadline, priced = offers.deadline(context), "now"
        identity = context.provider.identity
        announcement.warn_of_clock(context)
        try:
            offers.check_price(context, offer)
        except Unsuitable as error:
            refusal = error
        others = [other for other in others if offers.is_allowed(context, other)]
    hours = max(deadline - context.now(), 0) / 3600
    costs = announcement.cost_lines(context, offer, deadline, others)
    other_types = _cheapest_of_other_types(offer, others)
    planned = PlannedBox(
        headline=tuple(announcement.title(offer, priced, identity)),
        offer=priced_offer.of(context, offer, in_use=exists),
        exists=exists,
        deadline=deadline,
        at_most_usd=None if offer.hourly is None else offer.hourly * hours,
        cost_lines=tuple(costs),
        other_types=tuple(priced_offer.of(context, other) for other in other_types),
        other_sizes=(),
        max_hours=limits.max_hours,
        max_cost_usd=limits.max_cost,
        max_hourly_usd=limits.max_price,
        identity=identity or None,
    )
    return planned, refusal


def other_sizes(context: BoxContext, planned: PlannedBox) -> tuple[PricedOffer, ...]:
    """
    Return the best offers for the next smaller and the next larger size.

    It is empty if the box exists, if it costs nothing, or if the size has no number of
    vCPUs. A size that the provider does not have is left out.
    """
    size = context.settings.size
    if planned.exists or planned.offer.machine_hourly_usd == 0 or not size.cpus:
        return ()
    sizes = sorted(
        context.settings.sizes.values(), key=lambda size: (size.cpus, size.memory)
    )
    names = [size.name for size in sizes]
    if size.name not in names:
        return ()
    at = names.index(size.name)
    found = []
    for other in [*sizes[max(at - 1, 0) : at], *sizes[at + 1 : at + 2]]:
        with suppress(OneboxError):
            offer = offers.find_for_size(context, other)[0]
            found.append(priced_offer.of(context, offer, other))
    return tuple(found)


def question(context: BoxContext, planned: PlannedBox) -> str:
    """Return what `run` asks before it creates a dearer type, "" if it does not ask."""
    limits = context.settings.limits
    price_limits = (limits.max_price, limits.max_cost, context.settings.size.max_price)
    hourly = planned.offer.hourly_usd
    dearer = [
        offer
        for offer in planned.other_types
        if hourly is not None
        and (offer.hourly_usd is None or offer.hourly_usd > hourly)
    ]
    if planned.exists or not dearer or price_limits != (None, None, None):
        return ""
    return (
        f"if {planned.offer.type} has no capacity, run asks before it creates a dearer "
        f"type, such as {dearer[0].type}, unless [limits] max_price is set"
    )


def _cheapest_of_other_types(offer: Offer, others: list[Offer]) -> tuple[Offer, ...]:
    """Return the best offer of each of the next other types, in their order."""
    found: dict[tuple[str, bool], Offer] = {(offer.type, offer.spot): offer}
    for other in others:
        found.setdefault((other.type, other.spot), other)
    return tuple(found.values())[1 : 1 + _OTHER_TYPES]
