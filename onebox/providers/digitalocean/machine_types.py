"""Offer the droplet sizes that fit a size of onebox.toml, in each region."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from onebox.errors import NoCapacity, UsageError
from onebox.providers.digitalocean.client import Answer, Cloud
from onebox.providers.digitalocean.instances import read_offer
from onebox.providers.kernel import ranking
from onebox.providers.values import Offer, Requirements

GIGABYTE = 1 << 30
# An offer that costs more than this many times the cheapest fitting one is left out,
# unless the user has named its type.
DEAREST = 2.0
MOST = 12


class Catalogue:
    """The sizes that the API lists at `/v2/sizes`, cached for *lasts* seconds."""

    def __init__(
        self, cloud: Cloud, lasts: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._cloud = cloud
        self._lasts = lasts
        self._clock = clock
        self._known: list[Answer] = []
        self._asked = 0.0

    def all(self) -> list[Answer]:
        """Return all sizes, including those that are sold out."""
        if not self._known or self._clock() - self._asked > self._lasts:
            self._known = self._cloud.all("sizes", "sizes")
            self._asked = self._clock()
        return self._known

    def disk(self, slug: str) -> int | None:
        """Return the disk of a size in GB, None if the API does not list the size."""
        for one in self.all():
            if one.get("slug") == slug:
                return int(one.get("disk") or 0)
        return None


def offers(
    catalogue: Catalogue,
    requirements: Requirements,
    regions: Sequence[str],
    least_disk: int,
) -> list[Offer]:
    """
    Return at most MOST offers for a size, sorted by price and then by region.

    Args:
        least_disk: The smallest disk in GB that the image fits on.

    Raises:
        UsageError: No size fits; the message names the nearest.

        NoCapacity: The types that the user has named are sold out in every region.
    """
    if requirements.types:
        found = _named(catalogue, requirements, regions)
    else:
        found = _fitting(catalogue, requirements, regions)
    large = [
        offer for offer in found if (catalogue.disk(offer.type) or 0) >= least_disk
    ]
    if not large:
        raise UsageError(
            f"the image needs a disk of {least_disk} GB; {ranking.show(found[0])} has "
            f"{catalogue.disk(found[0].type)} GB",
            next="a larger --vm",
        )
    return [replace(offer, name=requirements.name) for offer in large][:MOST]


def no_spot(
    catalogue: Catalogue, requirements: Requirements, regions: Sequence[str]
) -> UsageError:
    """Return the error for a size with spot, which names the best on-demand offer."""
    on_demand = replace(requirements, spot=False)
    best = offers(catalogue, on_demand, regions, 0)[0]
    return UsageError(
        f"DigitalOcean has no spot capacity; on demand there is {ranking.show(best)}",
        next="--no-spot, or another --provider",
    )


def _named(
    catalogue: Catalogue, requirements: Requirements, regions: Sequence[str]
) -> list[Offer]:
    known = {str(one["slug"]): one for one in catalogue.all()}
    for slug in requirements.types:
        if slug not in known:
            raise ranking.no_such_type("DigitalOcean", slug, known)
    sizes = [known[slug] for slug in requirements.types]
    found = _available(sizes, regions)
    if found:
        return ranking.ranked(found, requirements)
    elsewhere = sorted({at for one in sizes for at in one["regions"]})
    what = " and ".join(requirements.types)
    if not elsewhere:
        raise NoCapacity(f"{what} is in no region at the moment", next="another --vm")
    if not any(one.get("available") for one in sizes):
        raise NoCapacity(f"{what} is sold out", next="another --vm")
    raise UsageError(
        f"{what} is not in {' or '.join(regions)}; it is in {', '.join(elsewhere)}",
        next="[digitalocean] region or regions, or another --vm",
    )


def _fitting(
    catalogue: Catalogue, requirements: Requirements, regions: Sequence[str]
) -> list[Offer]:
    here = _available([one for one in catalogue.all() if _dedicated(one)], regions)
    fitting = [offer for offer in here if ranking.fits(offer, requirements)]
    if not fitting:
        raise ranking.no_fit(
            f"{' or '.join(regions)} (DigitalOcean)", requirements, here
        )
    found = ranking.ranked(fitting, requirements)
    cheapest, _ = found[0].cost_order
    return [offer for offer in found if offer.cost_order[0] <= DEAREST * cheapest]


def _available(sizes: Iterable[Answer], regions: Sequence[str]) -> list[Offer]:
    """Return an offer for each size and region where the size is available now."""
    return [
        read_offer(one, None, region)
        for one in sizes
        for region in regions
        if one.get("available") and region in one["regions"]
    ]


def _dedicated(size: Answer) -> bool:
    """Return whether a size has dedicated CPUs and no GPU."""
    slug = str(size["slug"])
    own = "-" in slug and not slug.startswith(("s-", "gpu-"))
    return own and not size.get("gpu_info")
