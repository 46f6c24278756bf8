"""Sort offers, and build the error for a size that no offer fits."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from onebox import formatting
from onebox.errors import NoCapacity, UsageError
from onebox.providers.values import Offer, Requirements

DEFAULT_ARCH = "x86_64"
_UNAME = {"arm64": "aarch64"}
_NEAREST = 3
# At most this many offers of fixed sizes are tried. An offer that costs more than this
# many times the cheapest one is left out, unless the user has named its type.
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
    """Return the architecture of the image of a box, the default without an image."""
    image = requirements.image
    return image.arch if image and image.arch else DEFAULT_ARCH


def disk_gib(requirements: Requirements, default: int) -> int:
    """
    Return the size in GiB of a box's disk; it is never too small for the image.

    Args:
        default: The size in bytes that the provider's settings name.
    """
    least = requirements.image.disk if requirements.image else 0
    return math.ceil(max(requirements.disk or default, least) / (1 << 30))


def markets(requirements: Requirements) -> tuple[bool, ...]:
    """Return the markets to offer, best first: True for spot, False for on demand."""
    if requirements.spot and requirements.fallback:
        return (True, False)
    return (requirements.spot,)


def fits(offer: Offer, requirements: Requirements) -> bool:
    """Return whether an offer meets all requirements of a size."""
    return (
        offer.cpus >= requirements.cpus
        and offer.memory >= requirements.memory
        and offer.arch == arch_of(requirements)
    )


def price(offer: Offer) -> float:
    """Return an offer's price for sorting: an unknown price comes last."""
    return math.inf if offer.price is None else offer.price


def ranked(offers: Iterable[Offer], requirements: Requirements) -> list[Offer]:
    """
    Return the offers, best first.

    Spot offers come first, then the order of the types that the user named decides,
    then the price, then the size. Offers that are equal in all of these stay in the
    order of the user's regions and zones.
    """
    named = {name: place for place, name in enumerate(requirements.types)}
    return sorted(
        offers,
        key=lambda offer: (
            not offer.spot,
            named.get(offer.type, 0),
            price(offer),
            offer.cpus,
            offer.memory,
        ),
    )


def show(offer: Offer) -> str:
    """Return a type with its size, and its price if that is known, for a message."""
    size = f"{offer.cpus} vCPU, {formatting.byte_count(offer.memory)}"
    cost = "" if offer.price is None else f", {formatting.rate(offer.price)}"
    return f"{offer.type} ({size}{cost})"


def no_fit(
    where: str, requirements: Requirements, offers: Iterable[Offer]
) -> UsageError:
    """
    Return the error for a size that no offer fits; it names the nearest offers.

    Args:
        offers: All offers that could be made. The nearest ones are those that lack
            the least CPUs and memory.
    """

    def lack(offer: Offer) -> tuple[float, ...]:
        cpus = max(requirements.cpus / max(offer.cpus, 1), 1.0)
        memory = max(requirements.memory / max(offer.memory, 1), 1.0)
        return math.log(cpus) + math.log(memory), price(offer), offer.cpus

    by_type = {offer.type: offer for offer in sorted(offers, key=lack, reverse=True)}
    nearest = ", ".join(map(show, list(reversed(by_type.values()))[:_NEAREST]))
    return UsageError(
        f"no {arch_of(requirements)} machine type in {where} has {requirements.cpus} "
        f"vCPU and {formatting.byte_count(requirements.memory)}"
        + (f"; the nearest are {nearest}" if nearest else ""),
        next="a smaller size, another region, or another --provider",
    )


def no_such_type(where: str, name: str, known: Iterable[str]) -> UsageError:
    """Return the error for a type that a cloud lacks; it names similar types."""
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
    places: Sequence[str],
    sizes: Mapping[str, Sequence[Offer]],
    *,
    own_cpus: Callable[[str], bool],
    disk: Callable[[str], int],
) -> list[Offer]:
    """
    Return the offers of a cloud without spot, whose machine types include a disk.

    Args:
        cloud: Its name in sentences.

        places: Where boxes may be created, best first.

        sizes: The offers of each machine type, in every place that has it now.

        own_cpus: Returns whether a type has CPUs of its own; others must be named.

        disk: Returns the size of a type's disk in bytes.

    Raises:
        UsageError: Nothing fits; the message names the nearest.

        NoCapacity: The named types are sold out in these places.
    """
    where = f"{' or '.join(places)} ({cloud})"
    for name in requirements.types:
        if name not in sizes:
            raise no_such_type(cloud, name, sizes)
    names = requirements.types or [name for name in sizes if own_cpus(name)]
    here = [
        offer
        for name in names
        for place in places
        for offer in sizes[name]
        if offer.place == place
    ]
    if requirements.types and not here:
        raise NoCapacity(f"{' and '.join(names)} is not to be had in {where}")
    arch = arch_of(requirements)
    image = requirements.image.disk if requirements.image else 0
    least = max(image, requirements.disk or 0)
    found = [
        offer
        for offer in here
        if offer.arch == arch
        and disk(offer.type) >= least
        and (requirements.types or fits(offer, requirements))
    ]
    if requirements.types and not any(offer.arch == arch for offer in here):
        raise wrong_arch(names, here[0].arch, requirements)
    if not found and any(fits(offer, requirements) for offer in here):
        raise UsageError(
            f"no fitting machine type in {where} has a disk of "
            f"{formatting.byte_count(least)}",
            next="a larger --vm",
        )
    if not found:
        raise no_fit(where, requirements, here)
    best = ranked(found, requirements)[:MOST]
    if not requirements.types:
        limit = DEAREST * price(best[0])
        best = [offer for offer in best if price(offer) <= limit]
    if False not in markets(requirements):
        raise UsageError(
            f"{cloud} has no spot capacity; on demand there is {show(best[0])}",
            next="--no-spot, or another --provider",
        )
    return best
