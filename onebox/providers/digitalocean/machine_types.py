"""Which sizes there are, at which price, and which of them fit a need."""

from __future__ import annotations

import difflib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from onebox import formatting
from onebox.errors import NoCapacity, UsageError
from onebox.providers.base import Offer, Requirements
from onebox.providers.digitalocean.client import Answer, Calls
from onebox.providers.digitalocean.instances import MEGABYTE, shape

GIGABYTE = 1 << 30
# Nobody who asks for a small box means one at many times its price.
DEAREST = 2.0
MOST = 12
NEAREST = 3


class Catalogue:
    """What `/v2/sizes` says, asked for anew every few minutes."""

    def __init__(
        self, calls: Calls, lasts: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._calls = calls
        self._lasts = lasts
        self._clock = clock
        self._known: list[Answer] = []
        self._asked = 0.0

    def all(self) -> list[Answer]:
        """Return all sizes, also those that are not to be had."""
        if not self._known or self._clock() - self._asked > self._lasts:
            self._known = self._calls.all("sizes", "sizes")
            self._asked = self._clock()
        return self._known

    def disk(self, slug: str) -> int | None:
        """Return how many GB a size's disk has, None if there is no such size."""
        for one in self.all():
            if one.get("slug") == slug:
                return int(one.get("disk") or 0)
        return None


def candidates(
    catalogue: Catalogue, need: Requirements, regions: Sequence[str], least_disk: int
) -> list[Offer]:
    """
    Return what fits a need, best first: the cheapest, then by the user's regions.

    Args:
        least_disk: How many GB the disk must have for the image.

    Raises:
        UsageError: Nothing here fits; the nearest are named.

        NoCapacity: What was named is sold out, everywhere that it could be.
    """
    if need.types:
        found = _named(catalogue, need, regions)
    else:
        found = _fitting(catalogue, need, regions)
    large = [(one, region) for one, region in found if one["disk"] >= least_disk]
    if not large:
        raise UsageError(
            f"the image needs a disk of {least_disk} GB; "
            f"{_show(shape(found[0][0], None, ''))} has {found[0][0]['disk']} GB",
            next="a larger --vm",
        )
    return [replace(shape(one, None, at), name=need.name) for one, at in large][:MOST]


def no_spot(
    catalogue: Catalogue, need: Requirements, regions: Sequence[str]
) -> UsageError:
    """Say that there is no spot capacity, and what it costs without."""
    on_demand = replace(need, spot=False)
    best = candidates(catalogue, on_demand, regions, 0)[0]
    return UsageError(
        f"DigitalOcean has no spot capacity; without it {_show(best)}",
        next="--no-spot, or another --provider",
    )


def _named(
    catalogue: Catalogue, need: Requirements, regions: Sequence[str]
) -> list[tuple[Answer, str]]:
    known = {str(one["slug"]): one for one in catalogue.all()}
    for slug in need.types:
        if slug not in known:
            near = difflib.get_close_matches(slug, known, NEAREST, 0.5)
            raise UsageError(
                f"DigitalOcean has no size {slug!r}"
                + (f"; nearest: {', '.join(near)}" if near else ""),
                next="https://slugs.do-api.dev lists them",
            )
    found = [
        (known[slug], region)
        for slug in need.types
        for region in regions
        if known[slug].get("available") and region in known[slug]["regions"]
    ]
    if found:
        return found
    elsewhere = sorted({at for slug in need.types for at in known[slug]["regions"]})
    what = " and ".join(need.types)
    if not elsewhere:
        raise NoCapacity(f"{what} is in no region at the moment", next="another --vm")
    if not any(known[slug].get("available") for slug in need.types):
        raise NoCapacity(f"{what} is not to be had at the moment", next="another --vm")
    raise UsageError(
        f"{what} is not in {_regions(regions)}; it is in {', '.join(elsewhere)}",
        next="[digitalocean] region or regions, or another --vm",
    )


def _fitting(
    catalogue: Catalogue, need: Requirements, regions: Sequence[str]
) -> list[tuple[Answer, str]]:
    usual = [one for one in catalogue.all() if _usual(one)]
    here = [
        (one, region)
        for one in usual
        for region in regions
        if one.get("available") and region in one["regions"]
    ]
    fits = [
        (one, region)
        for one, region in here
        if one["vcpus"] >= need.cpus and one["memory"] * MEGABYTE >= need.memory
    ]
    if not fits:
        raise UsageError(
            f"no size of DigitalOcean in {_regions(regions)} has {need.cpus} vCPU and "
            f"{formatting.byte_count(need.memory)}{_nearest(here, need)}",
            next="another --vm, or another --provider",
        )
    fits.sort(key=lambda pair: (_price(pair[0]), regions.index(pair[1])))
    limit = DEAREST * _price(fits[0][0])
    return [pair for pair in fits if _price(pair[0]) <= limit]


def _usual(size: Answer) -> bool:
    """Tell whether its CPUs are its own, and it is not all about a GPU."""
    slug = str(size["slug"])
    own = "-" in slug and not slug.startswith(("s-", "gpu-"))
    return own and not size.get("gpu_info")


def _nearest(here: list[tuple[Answer, str]], need: Requirements) -> str:
    def missing(one: Answer) -> float:
        cpus = math.log(max(need.cpus / one["vcpus"], 1.0))
        memory = math.log(max(need.memory / (one["memory"] * MEGABYTE), 1.0))
        return cpus + memory

    by_slug = {str(one["slug"]): one for one, _ in here}
    near = sorted(by_slug.values(), key=lambda one: (missing(one), _price(one)))
    shown = [_show(shape(one, None, "")) for one in near[:NEAREST]]
    return f"; nearest: {', '.join(shown)}" if shown else ""


def _show(size: Offer) -> str:
    return (
        f"{size.type} ({size.cpus} vCPU, {formatting.byte_count(size.memory)}) costs "
        f"{formatting.rate(size.price)}"
    )


def _price(size: Answer) -> float:
    price = shape(size, None, "").price
    return math.inf if price is None else price


def _regions(regions: Sequence[str]) -> str:
    return " or ".join(regions)
