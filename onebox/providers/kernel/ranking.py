"""Sort offers, and build the error for a size that no offer fits."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Sequence

from onebox import formatting
from onebox.errors import UsageError
from onebox.providers.values import Offer, Requirements

DEFAULT_ARCH = "x86_64"
_UNAME = {"arm64": "aarch64"}
_NEAREST = 3
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
    """Return the architecture that an offer must have."""
    image = requirements.image
    return (image.arch if image else requirements.arch) or DEFAULT_ARCH


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


def ranked(offers: Iterable[Offer], requirements: Requirements) -> list[Offer]:
    """
    Return the offers, best first.

    Spot offers come first, then the order of the types that the user named decides,
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
    """Return a type with its size, and its price if that is known, for a message."""
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
        offers: All offers that could be made. The nearest ones are those that lack
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
