"""What can be had, at what price, whether that is too much, and saying so."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.boxes import cost_ceiling, last_prices
from onebox.errors import Unsuitable, UsageError
from onebox.providers.base import Image, Offer, Requirements
from onebox.settings import Size

if TYPE_CHECKING:
    from onebox.context import BoxContext


def find(context: BoxContext, image: Image | None = None) -> list[Offer]:
    """
    Return what can be had for the size asked for, best first; asked for once.

    Raises:
        UsageError: None of it has the image's architecture.
    """
    key = image.id if image else ""
    if key not in context.offers:
        settings = context.settings
        found = _candidates(context, settings.size, settings.wants_spot, image)
        if image is not None:
            found = _of_arch(found, image.arch, f"image {image.name}", "--vm")
        context.offers[key] = found
    return context.offers[key]


def find_for_builder(context: BoxContext) -> list[Offer]:
    """Return what images can be built on: never spot, and of the box's architecture."""
    if "builder" not in context.offers:
        found = _candidates(context, context.settings.builder, False, None)
        arch, vm = find(context)[0].arch, context.settings.vm
        found = _of_arch(found, arch, f"--vm={vm}", "[image] size")
        context.offers["builder"] = found
    return context.offers["builder"]


def _candidates(
    context: BoxContext, vm: Size, spot: bool, image: Image | None
) -> list[Offer]:
    need = Requirements(
        name=vm.name,
        cpus=vm.cpus,
        memory=vm.memory,
        spot=spot,
        types=vm.types.get(context.provider.name, ()),
        fallback=context.settings.limits.spot_fallback,
        image=image,
        disk=vm.disk,
    )
    found = last_prices.complete(context, context.provider.offers(need))
    if need.types or not any(size.priced for size in found):
        return found
    # The provider could not order them by price.
    return sorted(found, key=lambda one: (spot and not one.spot, _rank(one)))


def _rank(size: Offer) -> float:
    return float("inf") if size.hourly is None else size.hourly


def _of_arch(found: list[Offer], arch: str, whose: str, option: str) -> list[Offer]:
    """Keep the sizes that can run what was made for an architecture."""
    fit = [size for size in found if arch in ("", size.arch) or not size.arch]
    if not fit:
        raise UsageError(
            f"{whose} is for {arch}, and {found[0].type} is {found[0].arch}",
            next=f"another {option}, whose types are {arch}",
        )
    return fit


def deadline(context: BoxContext) -> float:
    """Return the moment (epoch) at which a box made now powers itself off."""
    return context.now() + context.settings.limits.max_hours * 3600


def announce(context: BoxContext) -> None:
    """Say, once per line, which box this is about and what it may cost at most."""
    greet(context)
    box = context.box
    if box is not None and box.state == "running" and not box.rescue:
        _headline(context, box.offer, box.deadline, "when it was made")
        return
    found = find(context)
    _compare_clocks(context)
    check_price(context, found[0])
    others = [size for size in found[1:] if allowed(context, size)]
    _headline(context, found[0], deadline(context), others=others)


def obtained(context: BoxContext, size: Offer) -> None:
    """Say what a box is, costs and may cost, if it is not what was announced."""
    said = context.offered
    if said is not None and (said.type, said.spot, said.hourly) == (
        size.type,
        size.spot,
        size.hourly,
    ):
        return
    context.offered = size
    title = _title(size, "now")
    title[0] = f"obtained instead: {title[0]}" if said is not None else title[0]
    context.screen.headline(title, cost_ceiling.lines(context, size, deadline(context)))


def confirm(context: BoxContext, size: Offer) -> None:
    """
    Ask, before it is made, for a box that is dearer than the one announced.

    There is no question where [limits] say what may be spent, where on-demand
    capacity was chosen as the fallback for spot, and where nobody can be asked: the
    headline has named the dearest one.

    Raises:
        UsageError: The answer was no.
    """
    said, limits = context.offered, context.settings.limits
    limited = (limits.max_price, limits.max_cost, context.settings.size.max_price)
    if (
        said is None
        or context.agreed
        or size.spot != said.spot
        or _rank(size) <= _rank(said)
        or limited != (None, None, None)
        or not context.screen.can_ask
    ):
        return
    worst = cost_ceiling.lines(context, size, deadline(context))[0]
    question = (
        f"{said.type} is not available; {size.type} costs "
        f"{formatting.rate(size.hourly)} "
        f"instead of {formatting.rate(said.hourly)} ({worst}). Type yes to go on with "
        "it, "
        "or with a dearer one:"
    )
    if not context.screen.ask(question, "yes"):
        raise UsageError(
            f"no box was made: {said.type} is not available, {size.type} costs more",
            next="later, another --vm, or [limits] max_price",
        )
    context.agreed = True


def allowed(context: BoxContext, size: Offer) -> bool:
    """Tell whether the limits allow a box of this size."""
    try:
        check_price(context, size)
    except Unsuitable:
        return False
    return True


def _compare_clocks(context: BoxContext) -> None:
    """Warn of a clock that is wrong here: nothing of a box's life depends on it."""
    ahead = context.now() - time.time()
    if abs(ahead) > formatting.CLOCK_SECONDS and "clock" not in context.warned:
        context.warned.add("clock")
        context.screen.warn(
            f"{formatting.clock_differs(ahead)} that of the boxes: set it; deadlines "
            "go by "
            "theirs"
        )


def check_price(context: BoxContext, size: Offer, vm: Size | None = None) -> None:
    """
    Raise Unsuitable if a box of this size could cost more than is allowed.

    The disk and the public address count; so does, for max_cost, what the earlier
    attempts at the same run have cost.
    """
    limits, vm = context.settings.limits, vm or context.settings.size
    hourly, spent = size.hourly, context.spent_before
    dearest = None
    if hourly is not None and spent is not None:
        dearest = spent + hourly * limits.max_hours
    for limit, cost, what in (
        (limits.max_price, hourly, "[limits] max_price"),
        (vm.max_price, hourly, f"[size.{vm.name}] max_price"),
        (limits.max_cost, dearest, "[limits] max_cost"),
    ):
        if limit is None:
            continue
        if cost is None:
            why = cost_ceiling.why_unknown(context)
            raise Unsuitable(
                f"the price of {size.type} is not known ({why}), so {what} = "
                f"{formatting.money(limit)} cannot be kept",
                next=f"choose another --vm, or remove {what}",
                cause=f"no known price ({why}), so {what} cannot be kept",
            )
        if cost > limit:
            raise Unsuitable(
                f"{size.type} could cost {formatting.money(cost)}, more than "
                f"{what} = {formatting.money(limit)}",
                next="a smaller --vm, fewer max_hours, or a higher limit",
                cause=f"could cost more than {what} = {formatting.money(limit)}",
            )


def greet(context: BoxContext) -> None:
    """Say what a line is about before a cloud's library is loaded and asked."""
    name = context.provider_name
    if context.greeted or name == "local":
        return
    context.greeted = True
    about = [context.title, name, context.settings.vm]
    context.screen.headline(about, [], whole=False)
    # What its library needs to load it may do while files are looked at.
    _ = context.provider


def _headline(
    context: BoxContext,
    size: Offer,
    deadline: float,
    priced: str = "now",
    others: Sequence[Offer] = (),
) -> None:
    """Say once per box what it is and what it may cost."""
    context.offered = size
    if context.headlines > context.ended:
        return
    context.headlines = context.ended + 1
    who = "" if context.greeted else f"{context.title}   {context.provider.name}"
    title = [who, *_title(size, priced)]
    more = cost_ceiling.lines(context, size, deadline, others)
    context.screen.headline(title, more, begun=context.greeted)


def _title(size: Offer, priced: str) -> list[str]:
    """Return what a box is, in the headline's words."""
    cores = f" ({size.cores} cores)" if size.cores else ""
    return [
        f"{size.name}: {size.type}" if size.name != size.type else size.type,
        size.place,
        f"{size.cpus} vCPU{cores}",
        formatting.byte_count(size.memory),
        _price(size, priced),
    ]


def _price(size: Offer, priced: str) -> str:
    """Write a size's price an hour, of which moment it is, and what spot saves."""
    if size.price is None or size.price == 0:
        return formatting.rate(size.price)
    if size.priced:
        priced = f"{formatting.age(time.time() - size.priced)} ago"
    text = f"{formatting.rate(size.price)} {priced}"
    if not size.spot:
        return text
    text = f"spot {text}"
    if size.on_demand:
        saved = 100 * (1 - size.price / size.on_demand)
        text += f"  (on demand {formatting.money(size.on_demand)}, -{saved:.0f} %)"
    return text
