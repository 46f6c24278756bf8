"""Find the machine types that fit a need, in the zones where they can be had."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from onebox.errors import UsageError
from onebox.providers import costs
from onebox.providers.base import Offer, Requirements
from onebox.providers.costs import Cost
from onebox.providers.gcp.client import Cloud, last
from onebox.providers.gcp.machine_families import FAMILIES, disk, family, plain
from onebox.providers.gcp.prices import Prices
from onebox.providers.gcp.settings import region_of

# So many types are offered, each in every zone: whoever finds no room in all of
# these wants to think again rather than wait.
_MOST_TYPES = 8
_ARCHES = {"X86_64": "x86_64", "ARM64": "aarch64"}


@dataclass(frozen=True)
class _Offer:
    """A machine type in one zone; *memory* in bytes."""

    type: str
    zone: str
    cpus: int
    memory: int
    arch: str
    shared: bool


def find(cloud: Cloud, prices: Prices, need: Requirements) -> list[Offer]:
    """
    Return the candidates for a need, best first.

    Raises:
        UsageError: Nothing fits; what comes nearest is named.
    """
    zones = _zones(cloud)
    offers = [offer for zone in zones for offer in _offers(cloud, zone, need)]
    fitting = [offer for offer in offers if _fits(offer, need)]
    if not fitting:
        raise _nothing(cloud, zones, need, offers)
    _load(cloud, prices, fitting, zones)
    models = (True, False) if need.spot and need.fallback else (need.spot,)
    return [
        size for spot in models for size in _ranked(cloud, fitting, prices, need, spot)
    ]


def in_zone(cloud: Cloud, prices: Prices, zone: str, need: Requirements) -> list[Offer]:
    """Return all that a zone has for a need, of whatever family, in no order."""
    offers = _offers(cloud, zone, need)
    _load(cloud, prices, offers, [zone])
    return [_size(cloud, offer, prices, need, need.spot) for offer in offers]


def _load(
    cloud: Cloud, prices: Prices, offers: Sequence[_Offer], zones: Sequence[str]
) -> None:
    prices.load(
        dict.fromkeys(offer.type.partition("-")[0] for offer in offers),
        dict.fromkeys(map(region_of, zones)),
        {disk(offer.type, cloud.settings.disk_type) for offer in offers},
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


def _offers(cloud: Cloud, zone: str, need: Requirements | None) -> list[_Offer]:
    if need is None:
        wanted = {}
    elif need.types:
        wanted = {"filter": " OR ".join(f'(name = "{name}")' for name in need.types)}
    else:
        least = math.ceil(need.memory / (1 << 20))
        enough = f"(guestCpus >= {need.cpus}) AND (memoryMb >= {least})"
        wanted = {"filter": enough}
    found = cloud.list(
        "machine_types", f"looking at machine types in {zone}", zone=zone, **wanted
    )
    return [
        _Offer(
            one.name,
            zone,
            one.guest_cpus,
            one.memory_mb << 20,
            _ARCHES.get(one.architecture, "") or _arch(one.name),
            one.is_shared_cpu,
        )
        for one in found
        if one.deprecated.state not in ("OBSOLETE", "DELETED")
    ]


def _fits(offer: _Offer, need: Requirements) -> bool:
    if need.types:
        boots = not need.image or need.image.arch in ("", offer.arch)
        return offer.type in need.types and boots
    enough = offer.cpus >= need.cpus and offer.memory >= need.memory
    arch = (need.image.arch if need.image else "") or "x86_64"
    return enough and plain(offer.type) and not offer.shared and offer.arch == arch


def _ranked(
    cloud: Cloud,
    offers: Sequence[_Offer],
    prices: Prices,
    need: Requirements,
    spot: bool,
) -> list[Offer]:
    order = {offer.zone: place for place, offer in reversed(list(enumerate(offers)))}
    known = {name: place for place, name in enumerate(FAMILIES)}
    named = {name: place for place, name in enumerate(need.types)}

    def rank(size: Offer) -> tuple[float, ...]:
        price = math.inf if size.price is None else size.price
        return (
            named.get(size.type, 0),
            price,
            size.cpus,
            size.memory,
            known.get(size.type.partition("-")[0], 0),
            order[size.place],
        )

    found = [_size(cloud, offer, prices, need, spot) for offer in offers]
    ranked = sorted(found, key=rank)
    types = list(dict.fromkeys(size.type for size in ranked))[:_MOST_TYPES]
    return [size for size in ranked if need.types or size.type in types]


def _size(
    cloud: Cloud, offer: _Offer, prices: Prices, need: Requirements, spot: bool
) -> Offer:
    region, gib = region_of(offer.zone), offer.memory / (1 << 30)
    # Local disks, metal and custom shapes cost what the catalogue does not tell so.
    known = plain(offer.type)

    def price(spot: bool) -> float | None:
        if not known:
            return None
        return prices.hourly(offer.type, region, spot, offer.cpus, gib)

    found = family(offer.type)
    return Offer(
        name=need.name,
        type=offer.type,
        cpus=offer.cpus,
        memory=offer.memory,
        price=price(spot),
        on_demand=price(False),
        spot=spot,
        place=offer.zone,
        cores=offer.cpus // found.threads if found else None,
        arch=offer.arch,
        extras=_extras(cloud, offer, prices, need, spot),
    )


def _extras(
    cloud: Cloud, offer: _Offer, prices: Prices, need: Requirements, spot: bool
) -> tuple[Cost, ...]:
    """Return what a box on this machine costs for its disk and address."""
    settings, region = cloud.settings, region_of(offer.zone)
    least = need.image.disk if need.image else 0
    gib = math.ceil(max(need.disk or settings.disk, least) / (1 << 30))
    kind = disk(offer.type, settings.disk_type)
    found = [costs.disk(gib, prices.disk(kind, region, gib))]
    if not settings.private:
        found.append(Cost(costs.ADDRESS, prices.address(spot)))
    return tuple(found)


def _nothing(
    cloud: Cloud, zones: Sequence[str], need: Requirements, offers: Sequence[_Offer]
) -> UsageError:
    places = ", ".join(zones)
    if offers and need.types and need.image:
        return UsageError(
            f"the image {need.image.name} is for {need.image.arch}, and "
            f"{', '.join(need.types)} is not",
            next="another --vm, or an image built on such a machine",
        )
    if need.types:
        what = f"{' or '.join(need.types)} cannot be had in {places}"
    else:
        what = (
            f"no machine type in {places} has {need.cpus} vCPU and "
            f"{need.memory / (1 << 30):.0f} GB"
        )
    near = _nearest(_offers(cloud, zones[0], None) if zones else (), need)
    return UsageError(what, next=f"the nearest: {near}" if near else "another region")


def _nearest(offers: Iterable[_Offer], need: Requirements) -> str:
    """Name three types that come closest to a need."""

    def distance(offer: _Offer) -> float:
        cpus = abs(math.log2(offer.cpus / max(need.cpus, 1)))
        return cpus + abs(math.log2(max(offer.memory, 1) / max(need.memory, 1)))

    def alike(offer: _Offer) -> float:
        wanted = need.types[0].split("-")
        return -sum(a == b for a, b in zip(offer.type.split("-"), wanted))

    fair = [offer for offer in offers if plain(offer.type) and not offer.shared]
    fair.sort(key=alike if need.types else distance)
    return ", ".join(
        f"{offer.type} ({offer.cpus} vCPU, {offer.memory / (1 << 30):.0f} GB)"
        for offer in fair[:3]
    )


def _arch(type_: str) -> str:
    found = family(type_)
    return found.arch if found else "x86_64"
