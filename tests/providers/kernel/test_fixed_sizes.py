"""Offers of a cloud whose machine types include a disk, without spot."""

from __future__ import annotations

from dataclasses import replace

import pytest

from onebox.errors import NoCapacity, UsageError
from onebox.providers.kernel.ranking import of_fixed_sizes
from onebox.providers.values import Image, Offer, Requirements, Tags

GB = 1 << 30


def offer(
    name: str, cpus: int, price: float, place: str, arch: str = "x86_64"
) -> Offer:
    """Return an offer with 4 GB for each vCPU."""
    return Offer("", name, cpus, 4 * cpus * GB, price, price, place=place, arch=arch)


SIZES = {
    "shared": [offer("shared", 8, 0.1, "here")],
    "own": [offer("own", 4, 0.2, "there"), offer("own", 4, 0.2, "here")],
    "large": [offer("large", 16, 0.4, "there")],
    "huge": [offer("huge", 64, 1.6, "here")],
    "arm": [offer("arm", 16, 0.4, "here", "aarch64")],
    "gone": [],
}
DISKS = {
    "shared": 80 * GB,
    "own": 80 * GB,
    "large": 320 * GB,
    "huge": 320 * GB,
    "arm": 80 * GB,
}


def best(need: Requirements) -> list[tuple[str, str]]:
    """Return the types and regions of the offers, best first."""
    found = of_fixed_sizes(
        "Cirrus",
        need,
        ("here", "there"),
        SIZES,
        is_dedicated=lambda name: name != "shared",
        disk=DISKS.__getitem__,
    )
    return [(one.type, one.place) for one in found]


def test_fitting_offers_are_sorted_by_price_and_region() -> None:
    """The user must name a type with shared CPUs, or one at over twice the price."""
    need = Requirements("small", 4, 16 * GB)
    assert best(need) == [("own", "here"), ("own", "there"), ("large", "there")]
    assert best(replace(need, types=("shared",))) == [("shared", "here")]
    both = replace(need, types=("own", "huge"))
    assert best(both)[-1] == ("huge", "here")


def test_the_disk_must_be_large_enough() -> None:
    """It holds the image, and is at least as large as requested."""
    need = Requirements("small", 4, 16 * GB, disk=100 * GB)
    assert best(need) == [("large", "there")]
    with pytest.raises(UsageError, match=r"needs a disk of 400 GB; .* has"):
        best(replace(need, disk=400 * GB))


def test_each_reason_for_no_offer_has_its_error() -> None:
    """The type is unknown, sold out or of another architecture, or spot is required."""
    need = Requirements("small", 4, 16 * GB)
    with pytest.raises(UsageError, match="no machine type owm") as caught:
        best(replace(need, types=("owm",)))
    assert "own" in caught.value.next
    with pytest.raises(NoCapacity, match="gone"):
        best(replace(need, types=("gone",)))
    tags = Tags("o", "p", "n", 0.0, "0")
    image = Image("im", "im", "", 0.0, 0, "aarch64", tags, disk=20 * GB)
    assert best(replace(need, image=image)) == [("arm", "here")]
    with pytest.raises(UsageError, match="but image im is for aarch64"):
        best(replace(need, image=image, types=("own",)))
    with pytest.raises(UsageError, match=r"no spot capacity.*own"):
        best(replace(need, spot=True))
    with pytest.raises(UsageError, match="no spot capacity"):
        best(replace(need, spot=True, fallback=True))
    with pytest.raises(UsageError, match="has 96 vCPU"):
        best(replace(need, cpus=96))
