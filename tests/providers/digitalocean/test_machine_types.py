"""The offers for a size: which droplet sizes, in which order, at which price."""

from __future__ import annotations

import dataclasses

import pytest

from onebox.errors import NoCapacity, UsageError
from onebox.providers.digitalocean import metadata
from onebox.providers.digitalocean.provider import DigitalOcean
from onebox.providers.values import Image, Requirements
from tests.fakes.digitalocean.server import Server

from ..boxes import MakeRequest, when_up
from .conftest import MakeProvider

GB = 1 << 30
SMALL = Requirements("small", 4, 16 * GB)


def offered(provider: DigitalOcean, need: Requirements) -> list[tuple[str, str]]:
    """Return the types and regions of the offers, in their order."""
    return [(size.type, size.place) for size in provider.offers(need)]


def test_the_cheapest_size_comes_first(server: Server, provider: DigitalOcean) -> None:
    """Regions keep their order, and no size shares CPUs."""
    assert offered(provider, SMALL) == [
        ("g-4vcpu-16gb", "nyc3"),
        ("g-4vcpu-16gb", "fra1"),
        ("gd-4vcpu-16gb", "nyc3"),
        ("g-8vcpu-32gb", "nyc3"),
        ("g-8vcpu-32gb", "fra1"),
    ]
    assert server.count("GET", "sizes") == 1


def test_an_offer_has_shape_price_and_name(provider: DigitalOcean) -> None:
    """The name is that of the requested size."""
    first = provider.offers(SMALL)[0]
    assert first.name == "small"
    assert (first.cpus, first.memory) == (4, 16 * GB)
    assert (first.machine_price, first.machine_on_demand, first.spot) == (
        0.1875,
        0.1875,
        False,
    )
    assert first.arch == "x86_64"


def test_a_size_of_a_later_region_is_offered_there(provider: DigitalOcean) -> None:
    """The first region lacks it."""
    assert offered(provider, Requirements("medium", 16, 64 * GB))[0] == (
        "g-16vcpu-64gb",
        "fra1",
    )


def test_a_size_at_more_than_twice_the_lowest_price_is_not_offered(
    provider: DigitalOcean,
) -> None:
    """A user who wants it names the type."""
    sizes = provider.offers(SMALL)
    assert max(size.machine_price or 0 for size in sizes) <= 2 * 0.1875


def test_an_unavailable_size_is_not_offered(
    server: Server, provider: DigitalOcean
) -> None:
    """The API lists it all the same."""
    for size in server.account.sizes:
        if size["slug"] == "g-4vcpu-16gb":
            size["available"] = False
    assert offered(provider, SMALL)[0] == ("gd-4vcpu-16gb", "nyc3")


def test_when_nothing_fits_the_nearest_three_are_named_with_prices(
    provider: DigitalOcean,
) -> None:
    """Where nothing fits, the nearest three are named with their prices."""
    with pytest.raises(UsageError) as caught:
        provider.offers(Requirements("large", 64, 256 * GB))
    message = caught.value.message
    assert "64 vCPU and 256 GB" in message
    assert "m-32vcpu-256gb (32 vCPU, 256 GB, $2.00/h)" in message
    assert message.count("/h)") == 3
    assert "gpu" not in message
    assert "c-60" not in message


def test_named_types_keep_their_order(provider: DigitalOcean) -> None:
    """They need not fit the requirements."""
    need = Requirements("mine", 0, 0, types=("s-1vcpu-1gb", "g-16vcpu-64gb"))
    assert offered(provider, need) == [
        ("s-1vcpu-1gb", "nyc3"),
        ("s-1vcpu-1gb", "fra1"),
        ("g-16vcpu-64gb", "fra1"),
    ]


def test_a_mistyped_type_is_answered_with_a_similar_name(
    provider: DigitalOcean,
) -> None:
    """The user may have meant it."""
    with pytest.raises(UsageError, match="no machine type g-4vcpu-16g") as caught:
        provider.offers(Requirements("mine", 0, 0, types=("g-4vcpu-16g",)))
    assert "g-4vcpu-16gb" in caught.value.next


def test_a_type_of_other_regions_names_them(
    server: Server, provider: DigitalOcean
) -> None:
    """It is a usage error."""
    server.account.sizes[0]["regions"] = ["sfo3"]
    with pytest.raises(UsageError, match="not in nyc3 or fra1; it is in sfo3"):
        provider.offers(Requirements("mine", 0, 0, types=("s-1vcpu-1gb",)))


def test_a_named_type_that_is_sold_out_is_missing_capacity(
    server: Server, provider: DigitalOcean
) -> None:
    """It is in no region now."""
    server.account.sizes[0]["regions"] = []
    server.account.sizes[-1]["regions"] = ["nyc3"]
    with pytest.raises(NoCapacity, match="c-60"):
        provider.offers(Requirements("mine", 0, 0, types=("c-60",)))
    with pytest.raises(NoCapacity, match="in no region"):
        provider.offers(Requirements("mine", 0, 0, types=("s-1vcpu-1gb",)))


@pytest.mark.parametrize("fallback", [False, True])
def test_a_spot_size_is_refused_with_the_price_on_demand(
    provider: DigitalOcean, fallback: bool
) -> None:
    """Spot is refused with what it costs without."""
    need = dataclasses.replace(SMALL, spot=True, fallback=fallback)
    with pytest.raises(UsageError) as caught:
        provider.offers(need)
    message = caught.value.message
    assert "no spot capacity" in message
    assert "g-4vcpu-16gb (4 vCPU, 16 GB, $0.19/h)" in message
    assert "--no-spot" in caught.value.next


@pytest.mark.parametrize("price", [0, None, -1])
def test_an_unreported_price_is_unknown(
    server: Server, provider: DigitalOcean, price: object
) -> None:
    """It is None, never 0, and comes last."""
    for size in server.account.sizes:
        if size["slug"] == "gd-4vcpu-16gb":
            size["price_hourly"] = price
    assert offered(provider, SMALL)[0][0] == "g-4vcpu-16gb"
    [named] = provider.offers(Requirements("x", 0, 0, types=("gd-4vcpu-16gb",)))
    assert (named.machine_price, named.machine_on_demand) == (None, None)


def test_only_sizes_whose_disk_holds_the_image_are_offered(
    server: Server, provider: DigitalOcean, make_request: MakeRequest
) -> None:
    """Without any, the error names the image."""
    image = saved(server, make_request, disk=120)
    assert offered(provider, dataclasses.replace(SMALL, image=image)) == [
        ("gd-4vcpu-16gb", "nyc3")
    ]
    small = Requirements("mine", 0, 0, types=("g-4vcpu-16gb",), image=image)
    with pytest.raises(UsageError, match=r"disk of 120 GB; g-4vcpu-16gb .* has 50 GB"):
        provider.offers(small)
    assert server.count("POST", ".*") == 0


def test_an_image_that_is_larger_than_the_disk_is_refused_before_the_call(
    server: Server, provider: DigitalOcean, make_request: MakeRequest
) -> None:
    """No create call is sent."""
    image = saved(server, make_request, disk=120)
    with pytest.raises(NoCapacity, match="the image needs 120"):
        provider.create(make_request(image=image))
    assert server.count("POST", ".*") == 0


def test_a_box_keeps_the_price_of_its_creation(
    server: Server, make_provider: MakeProvider, make_request: MakeRequest
) -> None:
    """Later prices do not change it."""
    provider = make_provider()
    box = when_up(provider, provider.create(make_request()))
    for size in server.account.sizes:
        size["price_hourly"] = 9.0
    found = make_provider().get(box.id)
    assert found is not None
    assert found.offer.machine_price == 0.1875


def saved(server: Server, make_request: MakeRequest, disk: int) -> Image:
    """Add an image of the owner to the account."""
    tags = dataclasses.replace(make_request().tags, kind="image")
    image = Image("oi-1", "env", "0123", 0.0, 0, "x86_64", tags)
    account = server.account
    with account.lock:
        number = 77
        account.images[number] = {
            "id": number,
            "name": "onebox.o.b.oi-1",
            "slug": None,
            "type": "snapshot",
            "public": False,
            "regions": ["nyc3"],
            "created_at": "2026-01-01T00:00:00Z",
            "min_disk_size": disk,
            "size_gigabytes": 2.5,
            "status": "available",
            "tags": [account.tag(metadata.of_image(image))],
        }
    return image
