"""The offers for a size: which machine types, in which order, at which price."""

from __future__ import annotations

import dataclasses

import pytest

from onebox.errors import UsageError
from onebox.providers.aws.provider import AWS
from onebox.providers.values import Image, Offer, Requirements, Tags
from tests.fakes.aws import catalog
from tests.fakes.aws.account import Account

from .conftest import MakeProvider

GB = 1 << 30
LARGE = Requirements("large", 64, 256 * GB)


def image(arch: str, *places: str) -> Image:
    """Return an image for an architecture."""
    tags = Tags("o", "p", "n", 0.0, "0", "image")
    return Image("im-1", "image", "", 0.0, 0, arch, tags, places)


def prices(sizes: list[Offer]) -> list[float]:
    """Return the prices of offers; each must be known."""
    return [size.machine_price for size in sizes if size.machine_price is not None]


class TestNeeds:
    def test_offers_are_sorted_by_price(self, provider: AWS) -> None:
        """Each type occurs once for each zone that has it."""
        found = list(provider.offers(LARGE))
        assert prices(found) == sorted(prices(found))
        assert len(prices(found)) == len(found)
        assert found[0].type == "m6a.16xlarge"
        assert len({size.place for size in found}) >= 4
        assert all(size.cpus >= 64 and size.memory >= 256 * GB for size in found)
        assert not any(size.spot for size in found)
        assert found[0].name == "large"

    def test_only_suitable_families_are_offered(self, provider: AWS) -> None:
        """No burstable, flexible, metal or old type, and one architecture."""
        found = {
            size.type for size in provider.offers(Requirements("small", 2, 4 * GB))
        }
        assert found
        for type_ in found:
            family = type_.partition(".")[0]
            assert family[0] in "cmr"
            assert family[1] in "6789"
            assert family[2:] in ("a", "i"), type_
        assert {size.arch for size in provider.offers(LARGE)} == {"x86_64"}

    def test_physical_cores_are_part_of_an_offer(self, provider: AWS) -> None:
        """A vCPU is half a core, or a whole one."""
        found = {size.type: size for size in provider.offers(LARGE)}
        assert (found["m7i.16xlarge"].cpus, found["m7i.16xlarge"].cores) == (64, 32)
        assert (found["m7a.16xlarge"].cpus, found["m7a.16xlarge"].cores) == (64, 64)

    def test_an_arm_image_is_offered_arm_types(self, provider: AWS) -> None:
        """No other type can boot it."""
        found = provider.offers(Requirements("s", 4, 8 * GB, image=image("aarch64")))
        assert {size.arch for size in found} == {"aarch64"}
        assert all(size.type[2] == "g" for size in found)

    def test_a_size_that_nothing_fits_names_the_nearest_types(
        self, provider: AWS
    ) -> None:
        """It is a usage error."""
        with pytest.raises(UsageError, match=r"r\d[ai]\.48xlarge"):
            provider.offers(Requirements("huge", 1000, 4000 * GB))

    def test_only_the_zones_of_the_settings_are_offered(
        self, make_provider: MakeProvider
    ) -> None:
        """They keep their order at equal prices."""
        found = make_provider(zones=["us-east-1c", "us-east-1a"]).offers(LARGE)
        first = [size.place for size in found if size.type == found[0].type]
        assert first == ["us-east-1c", "us-east-1a"]

    def test_more_regions_mean_more_offers(self, make_provider: MakeProvider) -> None:
        """Each region of the settings is searched."""
        found = make_provider(regions=["us-west-2"]).offers(LARGE)
        assert {size.place[:-1] for size in found} == {"us-east-1", "us-west-2"}

    def test_an_image_limits_the_regions(self, make_provider: MakeProvider) -> None:
        """Only regions that hold it are offered."""
        provider = make_provider(regions=["us-west-2"])
        need = Requirements("large", 64, 256 * GB, image=image("x86_64", "us-west-2"))
        assert {size.place[:-1] for size in provider.offers(need)} == {"us-west-2"}


class TestCosts:
    def test_a_size_names_its_disk_and_its_public_address_beside_the_machine(
        self, provider: AWS
    ) -> None:
        """Each part of the hourly price has a label."""
        best = provider.offers(LARGE)[0]
        assert [part.label for part in best.parts] == [
            "machine",
            "100 GB disk",
            "public IPv4",
        ]
        disk, address = best.extras
        assert disk.hourly == pytest.approx(100 * 0.08 / 730)
        assert address.hourly == 0.005
        assert best.machine_price is not None
        assert best.hourly == pytest.approx(
            best.machine_price + 100 * 0.08 / 730 + 0.005
        )
        assert best.hourly_stopped == disk.hourly

    def test_the_disk_of_a_size_is_the_larger_of_what_is_asked_and_the_image(
        self, provider: AWS
    ) -> None:
        """A disk that is asked for, or that the image needs, is what is billed."""
        offer = provider.offers(dataclasses.replace(LARGE, disk=500 * GB))[0]
        assert offer.extras[0].hourly == pytest.approx(500 * 0.08 / 730)
        large = dataclasses.replace(image("x86_64"), disk=200 * GB)
        found = provider.offers(dataclasses.replace(LARGE, image=large))[0]
        assert found.extras[0].hourly == pytest.approx(200 * 0.08 / 730)

    def test_a_private_box_pays_for_no_address(
        self, make_provider: MakeProvider
    ) -> None:
        """Without a public address there is none to be billed."""
        best = make_provider(private=True).offers(LARGE)[0]
        assert [part.label for part in best.extras] == ["100 GB disk"]

    def test_a_cost_that_is_not_known_makes_the_sum_unknown(
        self, make_provider: MakeProvider
    ) -> None:
        """A disk without a price is None in its part and in the sum, never 0."""
        best = make_provider(disk_type="st1").offers(LARGE)[0]
        assert best.extras[0].hourly is None
        assert best.machine_price is not None
        assert best.hourly is None

    @pytest.mark.parametrize(
        ("zone", "rate"), [("us-east-1a", 0.09), ("sa-east-1b", None)]
    )
    def test_egress_has_a_rate_or_is_unknown(
        self, provider: AWS, zone: str, rate: float | None
    ) -> None:
        """The price of a GB to the internet is known for some regions, and never 0."""
        assert provider.egress_rate(zone) == rate


class TestSpot:
    def test_spot_prices_differ_by_zone(self, provider: AWS) -> None:
        """Each zone has its own price."""
        found = list(provider.offers(Requirements("large", 64, 256 * GB, spot=True)))
        assert all(size.spot for size in found)
        assert prices(found) == sorted(prices(found))
        one = [size for size in found if size.type == found[0].type]
        assert len({size.machine_price for size in one}) > 1
        assert all(
            size.machine_on_demand and size.machine_price < size.machine_on_demand
            for size in one
            if size.machine_price
        )

    def test_on_demand_offers_follow_spot_only_with_a_fallback(
        self, provider: AWS
    ) -> None:
        """Without it, only spot is offered."""
        need = Requirements("large", 64, 256 * GB, spot=True, fallback=True)
        found = [size.spot for size in provider.offers(need)]
        assert found == sorted(found, reverse=True)
        assert set(found) == {True, False}


class TestNames:
    def test_named_types_keep_their_order(self, provider: AWS) -> None:
        """Their prices do not matter."""
        names = ("r7i.24xlarge", "m7i.large", "c7g.large")
        found = list(provider.offers(Requirements("beast", 0, 0, types=names)))
        order = list(dict.fromkeys(size.type for size in found))
        assert order == list(names)
        assert found[-1].arch == "aarch64"

    def test_a_named_type_may_be_burstable(self, provider: AWS) -> None:
        """Only unnamed types are filtered."""
        found = provider.offers(Requirements("t3.large", 0, 0, types=("t3.large",)))
        assert {size.type for size in found} == {"t3.large"}

    def test_an_unknown_type_names_similar_ones(self, provider: AWS) -> None:
        """It is a usage error."""
        with pytest.raises(UsageError, match=r"m7i\.17xlarge") as raised:
            provider.offers(Requirements("x", 0, 0, types=("m7i.17xlarge",)))
        assert "m7i.1" in raised.value.next

    def test_a_type_that_cannot_boot_the_image_is_not_offered(
        self, provider: AWS
    ) -> None:
        """It is refused before anything is created."""
        need = Requirements("x", 0, 0, types=("m7g.large",), image=image("x86_64"))
        with pytest.raises(UsageError, match=r"aarch64.*x86_64"):
            provider.offers(need)


class TestPrices:
    def test_an_unlisted_price_is_unknown(self, provider: AWS) -> None:
        """It is None, never 0, and comes last."""
        catalog.UNPRICED.add("m6a.16xlarge")
        try:
            found = list(provider.offers(LARGE))
        finally:
            catalog.UNPRICED.clear()
        assert found[-1].type == "m6a.16xlarge"
        assert found[-1].machine_price is None
        assert found[-1].machine_on_demand is None

    @pytest.mark.parametrize(
        "action", ["pricing:GetProducts", "ec2:DescribeSpotPriceHistory"]
    )
    def test_offers_need_no_permission_for_prices(
        self, provider: AWS, account: Account, action: str
    ) -> None:
        """The prices are unknown then."""
        account.faults.denied.add(action)
        found = provider.offers(Requirements("large", 64, 256 * GB, spot=True))
        unknown = {size.machine_price for size in found} == {None}
        assert unknown == (action != "pricing:GetProducts")

    def test_offers_take_few_calls(self, provider: AWS, account: Account) -> None:
        """Their number does not depend on the number of offers."""
        provider.offers(Requirements("large", 64, 256 * GB, spot=True))
        assert account.counted() == {
            "DescribeSubnets": 1,
            "DescribeInstanceTypes": 1,
            "DescribeInstanceTypeOfferings": 1,
            "GetProducts": 2,
            "DescribeSpotPriceHistory": 1,
        }
