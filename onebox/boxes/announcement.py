"""Announce which box a command uses and what it can cost until its deadline."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.boxes.offers import (
    check_price,
    deadline,
    find,
    is_allowed,
    why_unpriced,
)
from onebox.errors import UsageError
from onebox.providers import CLOUDS, PROVIDERS
from onebox.providers.values import Offer

if TYPE_CHECKING:
    from onebox.context import BoxContext


def print_title(context: BoxContext) -> None:
    """Print project, provider and requested size once, before the SDK is loaded."""
    provider_name = context.provider_name
    announced = context.chain.announced
    if announced.title_printed or provider_name == "local":
        return
    announced.title_printed = True
    title = [context.title, provider_name, context.settings.vm]
    context.screen.headline(title, [], complete=False)
    # The provider is loaded now, so that its SDK can continue to load in the
    # background while the files are listed.
    _ = context.provider


def announce(context: BoxContext) -> None:
    """
    Print which box is used or created, and its highest cost, once for each box.

    Raises:
        UsageError: The best offer exceeds a limit. This is not checked if a box runs.
    """
    print_title(context)
    box = context.find_box()
    if box is not None and box.state == "running" and not box.rescue:
        when = "when it was created"
        _headline(context, box.offer, box.deadline, when, identity=box.identity)
        return
    best, *others = find(context)
    warn_of_clock(context)
    check_price(context, best)
    others = [offer for offer in others if is_allowed(context, offer)]
    identity = context.provider.identity
    _headline(context, best, deadline(context), others=others, identity=identity)


def announce_obtained(context: BoxContext, offer: Offer) -> None:
    """Print the offer that a box was created from, unless it is the announced one."""
    announced = context.chain.announced
    before, announced.offer = announced.offer, offer
    if before is not None and (before.type, before.spot, before.hourly) == (
        offer.type,
        offer.spot,
        offer.hourly,
    ):
        return
    parts = title(offer, "now", context.provider.identity)
    if before is not None:
        parts[0] = f"obtained instead: {parts[0]}"
    context.screen.headline(parts, cost_lines(context, offer, deadline(context)))


def confirm_dearer(context: BoxContext, offer: Offer) -> None:
    """
    Ask the user before a box is created that is dearer than the announced one.

    The user is not asked in these cases:

    - A limit in onebox.toml bounds the price or the cost.
    - On-demand capacity replaces spot, which `spot_fallback` allows.
    - The user has already agreed to a dearer offer for this command.
    - There is no terminal. The headline has named the highest cost.

    Raises:
        UsageError: The user declined.
    """
    announced, limits = context.chain.announced, context.settings.limits
    expected = announced.offer
    price_limits = (limits.max_price, limits.max_cost, context.settings.size.max_price)
    if (
        expected is None
        or announced.dearer_accepted
        or offer.spot != expected.spot
        or offer.hourly == expected.hourly
        or offer.cost_order < expected.cost_order
        or price_limits != (None, None, None)
        or not context.screen.can_ask
    ):
        return
    ceiling = cost_lines(context, offer, deadline(context))[0]
    question = (
        f"{expected.type} is not available; {offer.type} costs "
        f"{formatting.rate(offer.hourly)} instead of "
        f"{formatting.rate(expected.hourly)} ({ceiling}). Type yes to continue with "
        "it, or with a dearer one:"
    )
    if not context.screen.ask(question, "yes"):
        raise UsageError(
            f"no box was created: {expected.type} is not available, {offer.type} "
            "costs more",
            next="later, another --vm, or [limits] max_price",
        )
    announced.dearer_accepted = True


def warn_of_clock(context: BoxContext) -> None:
    """Warn once if this machine's clock differs from the provider's clock."""
    ahead = context.now() - time.time()
    announced = context.chain.announced
    if abs(ahead) > formatting.CLOCK_SECONDS and not announced.clock_warned:
        announced.clock_warned = True
        context.screen.warn(
            f"{formatting.clock_differs(ahead)} that of the boxes: correct it; "
            "deadlines follow their clock"
        )


def _headline(
    context: BoxContext,
    offer: Offer,
    deadline: float,
    priced: str = "now",
    others: Sequence[Offer] = (),
    identity: str = "",
) -> None:
    """Print *offer* and its costs as a headline, once for each box."""
    announced = context.chain.announced
    announced.offer = offer
    if announced.boxes > context.chain.ended_boxes:
        return
    announced.boxes = context.chain.ended_boxes + 1
    subject = f"{context.title}   {context.provider.name}"
    parts = title(offer, priced, identity)
    parts.insert(0, "" if announced.title_printed else subject)
    costs = cost_lines(context, offer, deadline, others)
    context.screen.headline(parts, costs, continued=announced.title_printed)


def title(offer: Offer, priced: str, identity: str = "") -> list[str]:
    """
    Return the parts of a headline that describe an offer, and the box's identity.
    """
    cores = f" ({offer.cores} cores)" if offer.cores else ""
    return [
        f"{offer.name}: {offer.type}" if offer.name != offer.type else offer.type,
        offer.place,
        f"{offer.cpus} vCPU{cores}",
        formatting.byte_count(offer.memory),
        _price(offer, priced),
        *([f"identity {identity}"] if identity else ()),
    ]


def _price(offer: Offer, priced: str) -> str:
    """
    Return a text with an offer's hourly price and when that price was valid.

    For a spot offer, the text also has the on-demand price and the saving in percent.

    Args:
        priced: A phrase such as "now" for the time of the price. The age of the price
            replaces this phrase if the price comes from the price cache.
    """
    if offer.machine_price is None or offer.machine_price == 0:
        return formatting.rate(offer.machine_price)
    if offer.priced:
        priced = f"{formatting.age(time.time() - offer.priced)} ago"
    text = f"{formatting.rate(offer.machine_price)} {priced}"
    if not offer.spot:
        return text
    text = f"spot {text}"
    if offer.machine_on_demand:
        saved = 100 * (1 - offer.machine_price / offer.machine_on_demand)
        text += (
            f"  (on demand {formatting.money(offer.machine_on_demand)}, -{saved:.0f} %)"
        )
    return text


def cost_lines(
    context: BoxContext, offer: Offer, deadline: float, others: Sequence[Offer] = ()
) -> list[str]:
    """
    Return the lines that are printed below the headline for *offer*.

    They give the highest cost and its parts, and say whether prices are unknown or old.

    Args:
        others: The offers that are tried if *offer* is not available.
    """
    hours = max(deadline - context.now(), 0) / 3600
    if not context.provider.powers_off:
        most = context.provider.longest_job(context.settings.limits.max_hours * 3600)
        line = (
            "no machine is created: the cluster runs the job, for at most "
            f"{formatting.age(most)}"
        )
        return [line, *_without_effect(context)]
    off = formatting.off(deadline, context.now())
    if offer.machine_price == 0:
        line = f"the box {off}, even if this command is gone"
        return [line, *_without_effect(context)]
    ceiling = formatting.money(_product(offer.hourly, hours))
    ceiling += _dearer(offer, others, hours)
    if context.provider.stopped_is_free:
        first = f"at most {ceiling}: the box {off}, even if this machine is off"
    else:
        first = f"{ceiling} until the box {off}; it is billed until it is removed"
    lines = [first, _parts(context, offer, hours)]
    if offer.hourly is None:
        lines.append(f"$? is not known: {why_unpriced(context)}")
    elif offer.priced:
        age = formatting.age(time.time() - offer.priced)
        lines.append(f"prices are {age} old: {why_unpriced(context)}")
    return lines


def _without_effect(context: BoxContext) -> list[str]:
    """Return a line for each flag that has no effect where no machine is rented."""
    settings, here = context.settings, context.provider.name
    if PROVIDERS[here].machine_type:
        return []
    lines = []
    if settings.spot and settings.overrides_file("spot"):
        source = settings.source("spot")
        only = ", only rehearsals of it" if context.provider.powers_off else ""
        lines.append(f"{source}: {here} has no spot capacity{only}")
    rented = [name for name in CLOUDS if settings.size.types.get(name)]
    if rented and settings.overrides_file("vm") and not settings.size.cpus:
        command = f"inv run --provider={rented[0]} --vm={settings.vm}"
        lines.append(f"{settings.vm} is a type of {rented[0]}, to rent it: {command}")
    return lines


def _dearer(offer: Offer, others: Sequence[Offer], hours: float) -> str:
    """
    Return a phrase that states the highest cost among the alternatives to *offer*.

    The phrase is "" if no alternative is dearer, or if the price of *offer* is unknown.

    Args:
        others: The alternatives.
    """
    rates = [other.hourly for other in others]
    if offer.hourly is None or not rates:
        return ""
    known_rates = [rate for rate in rates if rate is not None]
    if len(known_rates) < len(rates):
        return ", or $? on another type"
    highest = max(known_rates)
    if highest <= offer.hourly:
        return ""
    cost = formatting.money(highest * hours)
    return f", or {cost} if only a dearer type is available"


def _parts(context: BoxContext, offer: Offer, hours: float) -> str:
    costs = [
        f"{part.label} {formatting.money(_product(part.hourly, hours))}"
        for part in offer.parts
    ]
    text = ", ".join(costs)
    egress = context.provider.egress_rate(offer.place)
    if egress != 0:
        text += f"; outputs {formatting.money(egress)} a GB at most"
    stopped = offer.hourly_stopped
    if stopped != 0 and context.provider.stopped_is_free:
        text += f"; off, its disk {formatting.rate(stopped)} until inv teardown"
    return text


def _product(rate: float | None, hours: float) -> float | None:
    return None if rate is None else rate * hours
