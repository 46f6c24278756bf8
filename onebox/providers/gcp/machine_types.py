"""Offer the machine types of Google Cloud that meet some requirements, in each zone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from onebox.errors import UsageError
from onebox.providers import costs
from onebox.providers.costs import Cost
from onebox.providers.gcp.client import Cloud, last
from onebox.providers.gcp.machine_families import FAMILIES, disk, family, plain
from onebox.providers.gcp.prices import Prices
from onebox.providers.gcp.settings import region_of
from onebox.providers.kernel import ranking
from onebox.providers.values import Offer, Requirements

# At most this many types are offered, each in every zone. If none of them has capacity,
# the user learns that soon, instead of after many more attempts.
_MOST_TYPES = 8
_ARCHES = ("X86_64", "ARM64")


def offers(cloud: Cloud, prices: Prices, requirements: Requirements) -> list[Offer]:
    """
    Return the offers that meet *requirements*, best first.

    Raises:
        UsageError: No machine type fits; the message names the nearest types.
    """
    zones = _zones(cloud)
    offers = [offer for zone in zones for offer in _in_zone(cloud, zone, requirements)]
    fitting = [offer for offer in offers if _fits(offer, requirements)]
    if not fitting:
        raise _no_fit(cloud, zones, requirements, offers)
    order = list(FAMILIES)
    # Offers are first sorted by family, so that this order decides between offers whose
    # prices are unknown.
    fitting.sort(
        key=lambda offer: order.index(_name(offer)) if family(offer.type) else 0
    )
    priced = [
        ranking.ranked(
            _priced(cloud, prices, fitting, requirements, spot), requirements
        )
        for spot in ranking.markets(requirements)
    ]
    return [offer for part in priced for offer in _first_types(part, requirements)]


def in_zone(
    cloud: Cloud, prices: Prices, zone: str, requirements: Requirements
) -> list[Offer]:
    """
    Return offers, with prices, for all machine types of a zone that are large enough.

    The types are of any family, and the offers are not sorted. If *requirements* names
    types, only these are offered.
    """
    return _priced(
        cloud,
        prices,
        _in_zone(cloud, zone, requirements),
        requirements,
        requirements.spot,
    )


def _zones(cloud: Cloud) -> list[str]:
    settings = cloud.settings
    if settings.zones:
        return list(settings.zones)
    return [
        last(zone)
        for region in settings.all_regions
        for zone in cloud.ask_named(
            "regions", "get", f"looking at region {region}", region=region
        ).zones
    ]


def _in_zone(cloud: Cloud, zone: str, requirements: Requirements | None) -> list[Offer]:
    """
    Return offers for the machine types of a zone, without prices.

    If *requirements* is None, all types of the zone are offered. If it names types,
    only these are offered. Otherwise all types that are large enough are offered.
    """
    if requirements is None:
        fields = {}
    elif requirements.types:
        fields = {
            "filter": " OR ".join(f'(name = "{name}")' for name in requirements.types)
        }
    else:
        least = math.ceil(requirements.memory / (1 << 20))
        enough = f"(guestCpus >= {requirements.cpus}) AND (memoryMb >= {least})"
        fields = {"filter": enough}
    found = cloud.list(
        "machine_types", f"looking at machine types in {zone}", zone=zone, **fields
    )
    return [
        Offer(
            name=requirements.name if requirements else "",
            type=one.name,
            cpus=one.guest_cpus,
            memory=one.memory_mb << 20,
            machine_price=None,
            machine_on_demand=None,
            place=zone,
            arch=_arch(one.name, one.architecture),
        )
        for one in found
        if one.deprecated.state not in ("OBSOLETE", "DELETED")
    ]


def _fits(offer: Offer, requirements: Requirements) -> bool:
    if requirements.types:
        boots = not requirements.image or requirements.image.arch in ("", offer.arch)
        return offer.type in requirements.types and boots
    return plain(offer.type) and ranking.fits(offer, requirements)


def _first_types(offers: Sequence[Offer], requirements: Requirements) -> list[Offer]:
    types = list(dict.fromkeys(offer.type for offer in offers))[:_MOST_TYPES]
    return [offer for offer in offers if requirements.types or offer.type in types]


def _priced(
    cloud: Cloud,
    prices: Prices,
    offers: Sequence[Offer],
    requirements: Requirements,
    spot: bool,
) -> list[Offer]:
    """
    Return the offers with the prices of their machine, disk and address filled in.
    """
    settings = cloud.settings
    prices.load(
        dict.fromkeys(map(_name, offers)),
        dict.fromkeys(region_of(offer.place) for offer in offers),
        {disk(offer.type, settings.disk_type) for offer in offers},
    )
    disk_gib = ranking.disk_gib(requirements, settings.disk)
    found = []
    for offer in offers:
        region, gib = region_of(offer.place), offer.memory / (1 << 30)
        kind, listed = disk(offer.type, settings.disk_type), family(offer.type)
        extras = [costs.disk(disk_gib, prices.disk(kind, region, disk_gib))]
        if not settings.private:
            extras.append(Cost(costs.ADDRESS, prices.address(spot)))
        # The catalogue has no exact prices for types with local disks, bare-metal types
        # and custom types.
        price, on_demand = (
            prices.hourly(offer.type, region, market, offer.cpus, gib)
            if plain(offer.type)
            else None
            for market in (spot, False)
        )
        found.append(
            replace(
                offer,
                spot=spot,
                machine_price=price,
                machine_on_demand=on_demand,
                cores=offer.cpus // listed.threads if listed else None,
                extras=tuple(extras),
            )
        )
    return found


def _no_fit(
    cloud: Cloud,
    zones: Sequence[str],
    requirements: Requirements,
    offers: Iterable[Offer],
) -> UsageError:
    places = ", ".join(zones)
    arches = {offer.arch for offer in offers}
    if arches and requirements.types:
        return ranking.wrong_arch(
            requirements.types, ", ".join(sorted(arches)), requirements
        )
    every = _in_zone(cloud, zones[0], None) if zones else []
    if requirements.types:
        names = " or ".join(requirements.types)
        return ranking.no_such_type(places, names, [offer.type for offer in every])
    arch = ranking.arch_of(requirements)
    usual = [offer for offer in every if plain(offer.type) and offer.arch == arch]
    return ranking.no_fit(places, requirements, usual)


def _name(offer: Offer) -> str:
    """Return the name of the offer's machine family, such as "n2d"."""
    return offer.type.partition("-")[0]


def _arch(type_: str, architecture: str) -> str:
    if architecture in _ARCHES:
        return ranking.uname(architecture)
    listed = family(type_)
    return listed.arch if listed else ranking.DEFAULT_ARCH
