"""An offer with its prices, as `inv offers` and `inv plan` print it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onebox.boxes import offers
from onebox.errors import Unsuitable
from onebox.providers.values import Offer

if TYPE_CHECKING:
    from onebox.context import BoxContext
    from onebox.settings import Size


@dataclass(frozen=True)
class PricedOffer:
    """
    A machine type in one place, with its prices; None means unknown.

    Attributes:
        size: The size of onebox.toml that the offer fits, or its type.

        type: The provider's name of the machine type.

        place: The provider's name of a zone or a region.

        cpus: The number of virtual CPUs.

        cores: The number of physical cores.

        memory_bytes: The memory in bytes.

        arch: The architecture, as `uname -m` prints it.

        spot: Whether it is spot capacity.

        hourly_usd: The price of all parts in USD an hour.

        machine_hourly_usd: The price of the machine alone.

        extras_hourly_usd: The price of each other part, by its label.

        on_demand_hourly_usd: The price of all parts on demand.

        priced: When the prices were read (epoch seconds), None if that was now.

        at_most_usd: The cost of [limits] max_hours.

        refused: The reason why the limits refuse the offer, "" if they allow it.
    """

    size: str
    type: str
    place: str | None
    cpus: int
    cores: int | None
    memory_bytes: int
    arch: str | None
    spot: bool
    hourly_usd: float | None
    machine_hourly_usd: float | None
    extras_hourly_usd: Mapping[str, float | None]
    on_demand_hourly_usd: float | None
    priced: float | None
    at_most_usd: float | None
    refused: str


def of(
    context: BoxContext,
    offer: Offer,
    size: Size | None = None,
    *,
    in_use: bool = False,
) -> PricedOffer:
    """
    Return an offer with its prices.

    Args:
        size: The size whose limit applies; None means the size of the box.

        in_use: Whether a box of this offer exists, so that no limit refuses it.
    """
    refused = ""
    if not in_use:
        try:
            offers.check_price(context, offer, size)
        except Unsuitable as error:
            refused = error.cause
    hourly, hours = offer.hourly, context.settings.limits.max_hours
    return PricedOffer(
        size=offer.name,
        type=offer.type,
        place=offer.place or None,
        cpus=offer.cpus,
        cores=offer.cores,
        memory_bytes=offer.memory,
        arch=offer.arch or None,
        spot=offer.spot,
        hourly_usd=hourly,
        machine_hourly_usd=offer.machine_price,
        extras_hourly_usd={extra.label: extra.hourly for extra in offer.extras},
        on_demand_hourly_usd=offer.hourly_on_demand,
        priced=offer.priced or None,
        at_most_usd=None if hourly is None else hourly * hours,
        refused=refused,
    )
