"""Sort offers, and build the error for a size that no offer fits."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from onebox import formatting
from onebox.errors import NoCapacity, OneboxError, UsageError
from onebox.providers.values import Offer, Requirements

DEFAULT_ARCH = "x86_64"
_UNAME = {"arm64": "aarch64"}
_NEAREST = 3
# At most MOST offers of fixed sizes are tried. An offer that costs more than DEAREST
# times the cheapest one is left out, unless the user has named its type.
MOST = 12
DEAREST = 2.0
# Two names are similar if difflib rates them at least this high (1 means equal).
_ALIKE = 0.6


def uname(arch: str) -> str:
    """
    Return the name that `uname -m` prints for an architecture that a cloud names.

    >>> uname("arm64"), uname("ARM64"), uname("X86_64")
    ('aarch64', 'aarch64', 'x86_64')
    """
    return _UNAME.get(arch.lower(), arch.lower())


def arch_of(requirements: Requirements) -> str:
    """Return the architecture that every offer for *requirements* must have."""
    image = requirements.image
    return (image.arch if image else requirements.arch) or DEFAULT_ARCH


def disk_gib(requirements: Requirements, default: int) -> int:
    """
    Return the size in GiB of a box's disk; it is never too small for the image.

    Args:
        default: The size in bytes to use if the requirements name no size.
    """
    least = requirements.image.disk if requirements.image else 0
    return math.ceil(max(requirements.disk or default, least) / (1 << 30))


def markets(requirements: Requirements) -> tuple[bool, ...]:
    """Return the markets to try, best first: True means spot, False means on demand."""
    if requirements.spot and requirements.fallback:
        return (True, False)
    return (requirements.spot,)


def fits(offer: Offer, requirements: Requirements) -> bool:
    """Return whether an offer has the architecture and enough CPUs and memory."""
    return (
        offer.cpus >= requirements.cpus
        and offer.memory >= requirements.memory
        and offer.arch == arch_of(requirements)
    )


def ranked(offers: Iterable[Offer], requirements: Requirements) -> list[Offer]:
    """
    Return the offers, best first.

    Spot offers come first. Next, the order in which the user named the types decides,
    then the hourly cost, then the size. Offers that are equal in all of these stay in
    the order of the user's regions and zones.
    """
    named = {name: place for place, name in enumerate(requirements.types)}
    return sorted(
        offers,
        key=lambda offer: (
            not offer.spot,
            named.get(offer.type, 0),
            offer.cost_order,
            offer.cpus,
            offer.memory,
        ),
    )


def show(offer: Offer) -> str:
    """
    Return a phrase with an offer's machine type, its size, and its price if known.
    """
    size = f"{offer.cpus} vCPU, {formatting.byte_count(offer.memory)}"
    cost = (
        ""
        if offer.machine_price is None
        else f", {formatting.rate(offer.machine_price)}"
    )
    return f"{offer.type} ({size}{cost})"


def no_fit(
    where: str, requirements: Requirements, offers: Iterable[Offer]
) -> UsageError:
    """
    Return the error for a size that no offer fits; it names the nearest offers.

    Args:
        offers: All offers that the cloud can make. The nearest ones are those that lack
            the least CPUs and memory.
    """

    def lack(offer: Offer) -> tuple[float, tuple[float, float], int]:
        cpus = max(requirements.cpus / max(offer.cpus, 1), 1.0)
        memory = max(requirements.memory / max(offer.memory, 1), 1.0)
        return math.log(cpus) + math.log(memory), offer.cost_order, offer.cpus

    by_type = {offer.type: offer for offer in sorted(offers, key=lack, reverse=True)}
    nearest = ", ".join(map(show, list(reversed(by_type.values()))[:_NEAREST]))
    return UsageError(
        f"no {arch_of(requirements)} machine type in {where} has {requirements.cpus} "
        f"vCPU and {formatting.byte_count(requirements.memory)}"
        + (f"; the nearest are {nearest}" if nearest else ""),
        next="a smaller size, another region, or another --provider",
    )


def no_such_type(where: str, name: str, known: Iterable[str]) -> UsageError:
    """
    Return the error for a machine type that a cloud lacks; it names similar types.
    """
    near = difflib.get_close_matches(name, sorted(known), _NEAREST, _ALIKE)
    return UsageError(
        f"{where} has no machine type {name}",
        next=f"did you mean {', '.join(near)}?" if near else "another --vm or region",
    )


def wrong_arch(
    types: Sequence[str], arch: str, requirements: Requirements
) -> UsageError:
    """Return the error for types that the user named but that cannot boot the image."""
    image = requirements.image
    name = image.name if image else "the image"
    return UsageError(
        f"{', '.join(types)}: {arch}, but image {name} is for {arch_of(requirements)}",
        next="another --vm, or an image of that architecture",
    )


def of_fixed_sizes(
    cloud: str,
    requirements: Requirements,
    regions: Sequence[str],
    sizes: Mapping[str, Sequence[Offer]],
    *,
    is_dedicated: Callable[[str], bool],
    disk: Callable[[str], int],
) -> list[Offer]:
    """
    Return at most MOST offers of a cloud whose machine types include a disk.

    Such a cloud has no spot capacity.

    Args:
        cloud: The name of the cloud in sentences.

        regions: The regions where boxes may be created, best first.

        sizes: For each machine type its offers, one for each region that has it now.

        is_dedicated: Returns whether a machine type has CPUs of its own. Any other type
            is offered only if the user has named it.

        disk: Returns the size in bytes of the disk of a machine type.

    Raises:
        UsageError: The requirements ask for spot, or no machine type fits. The message
            names the best or the nearest ones.

        NoCapacity: The types that the user has named are sold out in every region.
    """
    if requirements.spot:
        on_demand = replace(requirements, spot=False)
        best = of_fixed_sizes(
            cloud, on_demand, regions, sizes, is_dedicated=is_dedicated, disk=disk
        )[0]
        raise UsageError(
            f"{cloud} has no spot capacity; on demand there is {show(best)}",
            next="--no-spot, or another --provider",
        )
    for name in requirements.types:
        if name not in sizes:
            raise no_such_type(cloud, name, sizes)
    names = requirements.types or tuple(filter(is_dedicated, sizes))
    all_offers = [offer for name in names for offer in sizes[name]]
    here = [one for at in regions for one in all_offers if one.place == at]
    if requirements.types:
        if not here:
            raise _not_here(names, all_offers, regions)
        found = [one for one in here if one.arch == arch_of(requirements)]
        if not found:
            raise wrong_arch(names, here[0].arch, requirements)
    else:
        found = [offer for offer in here if fits(offer, requirements)]
        if not found:
            raise no_fit(f"{' or '.join(regions)} ({cloud})", requirements, here)
    return _with_disk(found, requirements, disk)


def _with_disk(
    offers: Sequence[Offer], requirements: Requirements, disk: Callable[[str], int]
) -> list[Offer]:
    """
    Return the offers whose disk is large enough: at most MOST, best first.

    Raises UsageError if no disk is large enough.
    """
    best = ranked(offers, requirements)
    image = requirements.image.disk if requirements.image else 0
    least = max(image, requirements.disk or 0)
    large = [offer for offer in best if disk(offer.type) >= least]
    if not large:
        who = "the image needs" if image == least else "the box needs"
        raise UsageError(
            f"{who} a disk of {formatting.byte_count(least)}; {show(best[0])} has "
            f"{formatting.byte_count(disk(best[0].type))}",
            next="a larger --vm",
        )
    if not requirements.types:
        limit = DEAREST * large[0].cost_order[0]
        large = [offer for offer in large if offer.cost_order[0] <= limit]
    return [replace(offer, name=requirements.name) for offer in large[:MOST]]


def _not_here(
    names: Sequence[str], offers: Sequence[Offer], regions: Sequence[str]
) -> OneboxError:
    """
    Return the error for types that the user named and that none of *regions* offers.
    """
    what = " and ".join(names)
    elsewhere = sorted({offer.place for offer in offers})
    if not elsewhere:
        return NoCapacity(f"{what} is in no region at the moment", next="another --vm")
    return UsageError(
        f"{what} is not in {' or '.join(regions)}; it is in {', '.join(elsewhere)}",
        next="another region in the provider's table, or another --vm",
    )
