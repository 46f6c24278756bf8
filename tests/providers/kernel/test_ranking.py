"""The order of offers, and the messages when none fits."""

from __future__ import annotations

import dataclasses

import pytest

from onebox.providers import costs
from onebox.providers.kernel import ranking
from onebox.providers.values import Image, Offer, Requirements, Tags

GB = 1 << 30
TAGS = Tags("owner", "project", "main", 0.0, "0", "image")
ARM = Image("im-1", "env", "0", 0.0, 0, "aarch64", TAGS)
LARGE = Requirements("large", 64, 256 * GB)


def offer(type_: str, cpus: int, gb: int, price: float | None, **more: object) -> Offer:
    """Return an offer with these numbers."""
    made = Offer("x", type_, cpus, gb * GB, price, price, arch="x86_64")
    return dataclasses.replace(made, **more)  # type: ignore[arg-type] # any field


def test_spot_comes_before_on_demand_before_an_unknown_price() -> None:
    """Within a market the cheapest is first, then the smallest."""
    expected = [
        offer("b", 4, 16, 0.9, spot=True),
        offer("a", 4, 16, 0.1),
        offer("c", 4, 16, 0.2),
        offer("d", 4, 16, None),
        offer("e", 8, 16, None),
    ]
    assert ranking.ranked(reversed(expected), LARGE) == expected


def test_disk_and_address_count_for_the_order() -> None:
    """A cheap machine with a dear disk follows a dearer machine with a cheap disk."""
    dear = offer("a", 4, 16, 1.0, extras=(costs.disk(100, 0.5),))
    cheap = offer("b", 4, 16, 1.1, extras=(costs.disk(100, 0.1),))
    assert ranking.ranked([dear, cheap], LARGE) == [cheap, dear]


def test_unknown_totals_are_ordered_by_the_machine_price() -> None:
    """An unknown disk price does not hide which machine is cheaper."""
    extras = (costs.disk(100, None),)
    dear = offer("a", 4, 16, 2.0, extras=extras)
    cheap = offer("b", 8, 16, 1.0, extras=extras)
    assert ranking.ranked([dear, cheap], LARGE) == [cheap, dear]


def test_named_types_keep_the_order_of_the_user() -> None:
    """The order of the names counts more than prices."""
    named = dataclasses.replace(LARGE, types=("dear", "cheap"))
    dear, cheap = offer("dear", 4, 16, 9.0), offer("cheap", 4, 16, 1.0)
    assert ranking.ranked([cheap, dear], named) == [dear, cheap]


def test_equal_offers_keep_the_order_of_the_zones() -> None:
    """Sorting is stable."""
    zones = [offer("a", 4, 16, 1.0, place=place) for place in ("f", "a", "c")]
    assert ranking.ranked(zones, LARGE) == zones


@pytest.mark.parametrize(
    ("spot", "fallback", "markets"),
    [
        (False, False, (False,)),
        (False, True, (False,)),
        (True, False, (True,)),
        (True, True, (True, False)),
    ],
)
def test_on_demand_follows_spot_only_with_a_fallback(
    spot: bool, fallback: bool, markets: tuple[bool, ...]
) -> None:
    """A size without spot never gets a spot offer."""
    size = dataclasses.replace(LARGE, spot=spot, fallback=fallback)
    assert ranking.markets(size) == markets


def test_an_offer_fits_if_nothing_is_smaller_and_the_image_boots() -> None:
    """Without an image, a box is x86_64."""
    assert ranking.fits(offer("a", 64, 256, 1.0), LARGE)
    assert not ranking.fits(offer("a", 63, 256, 1.0), LARGE)
    assert not ranking.fits(offer("a", 64, 255, 1.0), LARGE)
    with_arm = dataclasses.replace(LARGE, image=ARM)
    assert not ranking.fits(offer("a", 64, 256, 1.0), with_arm)
    assert ranking.fits(offer("a", 64, 256, 1.0, arch="aarch64"), with_arm)


def test_when_nothing_fits_the_three_that_lack_least_are_named() -> None:
    """Each type is named once, however many zones have it."""
    offers = [
        offer("tiny", 2, 4, 0.1),
        offer("nearly", 60, 256, 2.0, place="a"),
        offer("nearly", 60, 256, 2.0, place="b"),
        offer("half", 32, 256, 1.0),
        offer("quarter", 32, 128, None),
    ]
    error = ranking.no_fit("nyc3", LARGE, offers)
    assert error.message == (
        "no x86_64 machine type in nyc3 has 64 vCPU and 256 GB; the nearest are "
        "nearly (60 vCPU, 256 GB, $2.00/h), half (32 vCPU, 256 GB, $1.00/h), "
        "quarter (32 vCPU, 128 GB)"
    )
    assert ranking.no_fit("nyc3", LARGE, []).message.endswith("256 GB")


def test_a_mistyped_type_is_answered_with_similar_names() -> None:
    """A name that is like none gets other advice."""
    known = ["m7i.large", "m7i.16xlarge", "c7g.large"]
    error = ranking.no_such_type("us-east-1", "m7i.17xlarge", known)
    assert "m7i.17xlarge" in error.message
    assert error.next.startswith("did you mean m7i.16xlarge")
    assert "did you mean" not in ranking.no_such_type("nyc3", "zzz", known).next
