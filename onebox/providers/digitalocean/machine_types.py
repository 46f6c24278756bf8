"""
Offer the machine types that fit a size of onebox.toml, in each region.

DigitalOcean calls a machine type a size.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from onebox.providers.digitalocean.client import Answer, Cloud
from onebox.providers.kernel import ranking
from onebox.providers.values import Offer, Requirements

MEGABYTE, GIGABYTE = 1 << 20, 1 << 30


class MachineTypes:
    """
    The machine types that the API lists at `/v2/sizes`, cached for *lasts* seconds.
    """

    def __init__(
        self, cloud: Cloud, lasts: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._cloud = cloud
        self._lasts = lasts
        self._clock = clock
        self._known: list[Answer] = []
        self._asked = 0.0

    def all(self) -> list[Answer]:
        """Return all machine types, including those that are sold out."""
        if not self._known or self._clock() - self._asked > self._lasts:
            self._known = self._cloud.all("sizes", "sizes")
            self._asked = self._clock()
        return self._known

    def disk(self, slug: str) -> int | None:
        """
        Return the disk of a machine type in GB, None if the API does not list the type.
        """
        for one in self.all():
            if one.get("slug") == slug:
                return int(one.get("disk") or 0)
        return None

    def offers(
        self, requirements: Requirements, regions: Sequence[str]
    ) -> Sequence[Offer]:
        """Return the offers that meet the requirements, best first."""
        sizes = {str(one["slug"]): one for one in self.all()}
        return ranking.of_fixed_sizes(
            "DigitalOcean",
            requirements,
            regions,
            {slug: _in_regions(size) for slug, size in sizes.items()},
            is_dedicated=lambda slug: _is_dedicated(sizes[slug]),
            disk=lambda slug: int(sizes[slug].get("disk") or 0) * GIGABYTE,
        )


def read_offer(size: Answer, droplet: Answer | None, place: str) -> Offer:
    """
    Return a machine type as an offer in the region *place*, at its current price.

    *size* is the API's description of the type. If *droplet* is given, its type, CPUs
    and memory replace those in *size*.
    """
    of = {**size, **(droplet or {})}
    hourly = size.get("price_hourly")
    price = float(hourly) if isinstance(hourly, (int, float)) and hourly > 0 else None
    slug = str(of.get("size_slug") or size.get("slug"))
    return Offer(
        name=slug,
        type=slug,
        cpus=int(of.get("vcpus") or 0),
        memory=int(of.get("memory") or 0) * MEGABYTE,
        machine_price=price,
        machine_on_demand=price,
        place=place,
        arch="x86_64",
    )


def _in_regions(size: Answer) -> list[Offer]:
    """
    Return the offers of a machine type, one for each region where it is available.
    """
    regions = size.get("regions") or [] if size.get("available") else []
    return [read_offer(size, None, str(region)) for region in regions]


def _is_dedicated(size: Answer) -> bool:
    """Return whether a machine type has dedicated CPUs and no GPU."""
    slug = str(size["slug"])
    own = "-" in slug and not slug.startswith(("s-", "gpu-"))
    return own and not size.get("gpu_info")
