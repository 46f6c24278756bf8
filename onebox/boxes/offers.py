"""Find the offers for a size, best first, and check them against the limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onebox import formatting
from onebox.boxes import price_cache
from onebox.errors import Unsuitable, UsageError
from onebox.providers.values import Image, Offer, Requirements
from onebox.settings import Size

if TYPE_CHECKING:
    from onebox.context import BoxContext


def find(context: BoxContext, image: Image | None = None) -> list[Offer]:
    """
    Return the offers for the requested size, best first; the result is cached.

    Raises:
        UsageError: No offer has the architecture of the image.
    """
    cache, key = context.cache.offers, image.id if image else ""
    if key not in cache:
        settings = context.settings
        offers = _find(context, settings.size, settings.wants_spot, image)
        if image is not None:
            offers = _of_arch(offers, image.arch, f"image {image.name}", "--vm")
        cache[key] = offers
    return cache[key]


def find_for_size(context: BoxContext, size: Size) -> list[Offer]:
    """Return the offers for another size than the requested one, best first."""
    spot = context.settings.spot
    return _find(context, size, bool(size.spot if spot is None else spot), None)


def find_for_builder(context: BoxContext) -> list[Offer]:
    """Return the on-demand offers for a builder that has the box's architecture."""
    cache = context.cache.offers
    if "builder" not in cache:
        offers = _find(context, _builder_size(context), False, None)
        arch, size_name = find(context)[0].arch, context.settings.vm
        offers = _of_arch(offers, arch, f"--vm={size_name}", "[image] size")
        cache["builder"] = offers
    return cache["builder"]


def _builder_size(context: BoxContext) -> Size:
    """Return the size for a builder; on a cluster it is the job's, unless it is set."""
    settings = context.settings
    given = settings.source("image.size") != "default"
    if context.provider.powers_off or given:
        return settings.builder_size
    return settings.size


def _find(
    context: BoxContext, size: Size, spot: bool, image: Image | None
) -> list[Offer]:
    requirements = Requirements(
        name=size.name,
        cpus=size.cpus,
        memory=size.memory,
        spot=spot,
        types=size.types.get(context.provider.name, ()),
        fallback=context.settings.limits.spot_fallback,
        image=image,
        disk=size.disk,
    )
    offers = price_cache.complete(context, context.provider.offers(requirements))
    if requirements.types or not any(offer.priced for offer in offers):
        return offers
    # The offers are sorted again, because the provider sorted them without the prices
    # that the cache has added.
    return sorted(offers, key=lambda offer: (spot and not offer.spot, offer.cost_order))


def _of_arch(offers: list[Offer], arch: str, source: str, option: str) -> list[Offer]:
    """
    Return those *offers* that have the architecture *arch*.

    An unknown architecture, of an offer or as *arch*, matches any other.

    Args:
        source: For the error message, the image or size that requires *arch*.

        option: For the error message, the option that selects other machine types.

    Raises:
        UsageError: No offer matches.
    """
    matching = [offer for offer in offers if arch in ("", offer.arch) or not offer.arch]
    if not matching:
        raise UsageError(
            f"{source} is for {arch}, and {offers[0].type} is {offers[0].arch}",
            next=f"another {option}, whose types are {arch}",
        )
    return matching


def deadline(context: BoxContext) -> float:
    """Return the deadline (epoch seconds) of a box that is created now."""
    return context.now() + context.settings.limits.max_hours * 3600


def is_allowed(context: BoxContext, offer: Offer) -> bool:
    """Return whether the limits allow a box from this offer."""
    try:
        check_price(context, offer)
    except Unsuitable:
        return False
    return True


def check_price(context: BoxContext, offer: Offer, size: Size | None = None) -> None:
    """
    Raise Unsuitable if a box from this offer could exceed a limit.

    The price includes the disk and the public address. The cost of earlier attempts
    at the same run counts towards max_cost.

    Args:
        size: The size whose max_price applies; None means the size of the box.
    """
    limits, size = context.settings.limits, size or context.settings.size
    hourly, spent = offer.hourly, context.chain.spent_before
    highest = None
    if hourly is not None and spent is not None:
        highest = spent + hourly * limits.max_hours
    for limit, cost, key in (
        (limits.max_price, hourly, "[limits] max_price"),
        (size.max_price, hourly, f"[size.{size.name}] max_price"),
        (limits.max_cost, highest, "[limits] max_cost"),
    ):
        if limit is None:
            continue
        if cost is None:
            why = why_unpriced(context)
            raise Unsuitable(
                f"the price of {offer.type} is unknown ({why}), so {key} = "
                f"{formatting.money(limit)} cannot be enforced",
                next=f"choose another --vm, or remove {key}",
                cause=f"unknown price ({why}), so {key} cannot be enforced",
            )
        if cost > limit:
            raise Unsuitable(
                f"{offer.type} could cost {formatting.money(cost)}, more than "
                f"{key} = {formatting.money(limit)}",
                next="a smaller --vm, fewer max_hours, or a higher limit",
                cause=f"could cost more than {key} = {formatting.money(limit)}",
            )


def why_unpriced(context: BoxContext) -> str:
    """Return the reason why the price of an offer is unknown or old."""
    return context.provider.unpriced or "the price list does not contain it"
