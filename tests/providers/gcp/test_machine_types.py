"""The offers for a size: which machine types, in which order, at which price."""

from __future__ import annotations

import dataclasses

import pytest

from onebox.errors import UsageError
from onebox.providers.gcp import machine_families
from onebox.providers.gcp.provider import GCP
from onebox.providers.values import Image, Offer, Requirements, Tags
from tests.fakes.gcp.server import Server

from .conftest import MakeProvider

SMALL = Requirements("small", 4, 16 << 30)
TAGS = Tags("owner", "project", "main", 0.0, "0", "image")
ARM = Image("im-1", "main", "0", 0.0, 0, "aarch64", TAGS)


class TestCandidates:
    def test_offers_are_sorted_by_price(self, provider: GCP) -> None:
        """Each type occurs once for each zone of the region."""
        found = provider.offers(SMALL)
        first = found[0]
        assert first.type == "n2d-standard-4"
        assert (
            first.machine_on_demand
            == first.machine_price
            == pytest.approx(4 * 0.027502 + 16 * 0.003686)
        )
        assert [one.place for one in found[:3]] == [
            "us-central1-a",
            "us-central1-b",
            "us-central1-f",
        ]
        prices = [one.machine_price for one in found if one.machine_price is not None]
        assert prices == sorted(prices)

    def test_a_spot_offer_also_has_the_on_demand_price(self, provider: GCP) -> None:
        """Both are from the catalogue."""
        first = provider.offers(dataclasses.replace(SMALL, spot=True))[0]
        assert first.spot
        assert first.machine_price == pytest.approx(4 * 0.00796 + 16 * 0.001067)
        assert first.machine_on_demand == pytest.approx(4 * 0.027502 + 16 * 0.003686)

    def test_on_demand_offers_follow_spot_only_with_a_fallback(
        self, provider: GCP
    ) -> None:
        """All spot offers come first."""
        found = provider.offers(dataclasses.replace(SMALL, spot=True, fallback=True))
        spots = [one.spot for one in found]
        assert spots == sorted(spots, reverse=True)
        assert set(spots) == {True, False}

    def test_only_suitable_families_are_offered(self, provider: GCP) -> None:
        """No shared core, burst, metal, local disk or other arch."""
        types = {one.type for one in provider.offers(SMALL)}
        assert types == {
            "n2d-standard-4",
            "n2-standard-4",
            "c3-standard-4",
            "n4-standard-4",
            "n2d-standard-16",
            "n2d-standard-64",
            "n2-standard-64",
        }

    def test_an_arm_image_is_offered_arm_types(self, provider: GCP) -> None:
        """No other type can boot it."""
        found = provider.offers(dataclasses.replace(SMALL, image=ARM))
        assert {one.arch for one in found} == {"aarch64"}
        assert found[0].type == "t2a-standard-4"
        with pytest.raises(UsageError, match="aarch64"):
            provider.offers(
                dataclasses.replace(SMALL, image=ARM, types=("n2-standard-4",))
            )

    def test_named_types_keep_their_order(self, provider: GCP) -> None:
        """Their prices do not matter."""
        need = Requirements("beast", 0, 0, types=("n2-standard-64", "e2-standard-4"))
        found = provider.offers(need)
        assert list(dict.fromkeys(one.type for one in found)) == list(need.types)

    def test_two_vcpus_share_a_core(self, provider: GCP) -> None:
        """In some families a vCPU is a core."""
        found = provider.offers(Requirements("x", 4, 1 << 30, types=("n2-standard-4",)))
        assert (found[0].cpus, found[0].cores) == (4, 2)
        found = provider.offers(
            Requirements("x", 4, 1 << 30, types=("t2a-standard-4",))
        )
        assert (found[0].cpus, found[0].cores) == (4, 4)

    def test_only_the_zones_of_the_settings_are_offered(
        self, make_provider: MakeProvider
    ) -> None:
        """They keep their order."""
        provider = make_provider(zones=["us-central1-f", "us-central1-a"])
        places = [one.place for one in provider.offers(SMALL)]
        assert places[:2] == ["us-central1-f", "us-central1-a"]
        assert set(places) == {"us-central1-f", "us-central1-a"}

    def test_more_regions_follow_the_first(self, make_provider: MakeProvider) -> None:
        """Each region of the settings is searched."""
        provider = make_provider(regions=["europe-west4"])
        places = {one.place for one in provider.offers(SMALL)}
        assert "europe-west4-a" in places

    def test_a_wrong_region_is_a_usage_error(self, make_provider: MakeProvider) -> None:
        """The error names it."""
        with pytest.raises(UsageError, match="us-middle9"):
            make_provider(region="us-middle9").offers(SMALL)

    def test_when_nothing_fits_the_nearest_are_named(self, provider: GCP) -> None:
        """A smaller box is never offered silently."""
        with pytest.raises(UsageError) as caught:
            provider.offers(Requirements("huge", 60, 1 << 40))
        assert "n2d-standard-64 (64 vCPU, 256 GB)" in caught.value.message

    def test_an_unknown_type_names_similar_ones(self, provider: GCP) -> None:
        """It is a usage error."""
        with pytest.raises(UsageError, match="n2-standard-5") as caught:
            provider.offers(
                Requirements("n2-standard-5", 0, 0, types=("n2-standard-5",))
            )
        assert "n2-standard-4" in caught.value.next


class TestPrices:
    @pytest.mark.parametrize("type_", ["e2-standard-4", "c3-standard-4-lssd"])
    def test_an_inexact_price_is_unknown(self, provider: GCP, type_: str) -> None:
        """It is None, never 0."""
        found = provider.offers(Requirements("x", 0, 0, types=(type_,)))
        assert {one.machine_price for one in found} == {None}

    def test_a_region_that_the_catalogue_lacks_has_no_prices(
        self, make_provider: MakeProvider
    ) -> None:
        """They are None."""
        found = make_provider(region="europe-west4").offers(SMALL)
        assert {one.machine_price for one in found} == {None}

    def test_offers_need_no_catalogue(self, server: Server, provider: GCP) -> None:
        """Without prices the smallest type comes first."""
        server.catalogue = False
        found = provider.offers(SMALL)
        assert {one.machine_price for one in found} == {None}
        assert found[0].cpus == 4

    def test_a_private_endpoint_needs_a_private_catalogue(
        self, make_provider: MakeProvider
    ) -> None:
        """The public one is not read."""
        found = make_provider(billing_endpoint=None).offers(SMALL)
        assert {one.machine_price for one in found} == {None}

    def test_an_unreachable_catalogue_leaves_prices_unknown(
        self, make_provider: MakeProvider
    ) -> None:
        """The offers are complete otherwise."""
        provider = make_provider(billing_endpoint="http://127.0.0.1:9")
        assert provider.offers(SMALL)[0].machine_price is None


class TestCosts:
    @pytest.mark.parametrize(
        ("type_", "spot", "month", "address"),
        [
            ("n2d-standard-4", False, 0.10, 0.005),
            ("n2d-standard-4", True, 0.10, 0.0025),
            ("n4-standard-4", False, 0.08, 0.005),
        ],
    )
    def test_a_size_names_its_disk_and_its_public_address_beside_the_machine(
        self, provider: GCP, type_: str, spot: bool, month: float, address: float
    ) -> None:
        """Both come from the catalogue: of that kind of disk, of spot or not."""
        need = Requirements("x", 0, 0, types=(type_,), spot=spot)
        best = provider.offers(need)[0]
        assert [part.label for part in best.parts] == [
            "machine",
            "100 GB disk",
            "public IPv4",
        ]
        assert best.extras[0].hourly == pytest.approx(100 * month / 730)
        assert best.extras[1].hourly == address

    def test_a_private_box_pays_for_no_address(
        self, make_provider: MakeProvider
    ) -> None:
        """Without a public address there is none to be billed."""
        best = make_provider(private=True).offers(SMALL)[0]
        assert [part.label for part in best.extras] == ["100 GB disk"]

    def test_costs_without_the_catalogue_are_unknown_never_nothing(
        self, server: Server, provider: GCP
    ) -> None:
        """Without prices each part is None, and the reason is kept."""
        server.catalogue = False
        best = provider.offers(SMALL)[0]
        assert {part.hourly for part in best.parts} == {None}
        assert best.hourly is None
        assert provider.unpriced


class TestFamilies:
    @pytest.mark.parametrize(
        ("type_", "wanted", "found"),
        [
            ("n2d-standard-4", "pd-ssd", "pd-ssd"),
            ("n2d-standard-4", "hyperdisk-balanced", "pd-balanced"),
            ("n4-standard-4", "pd-balanced", "hyperdisk-balanced"),
            ("c3-standard-4", "hyperdisk-balanced", "hyperdisk-balanced"),
            ("x9-standard-4", "pd-ssd", "pd-ssd"),
        ],
    )
    def test_a_family_gets_a_disk_that_it_supports(
        self, type_: str, wanted: str, found: str
    ) -> None:
        """The settings name another kind."""
        assert machine_families.disk(type_, wanted) == found


class TestQuotas:
    @pytest.mark.parametrize(
        ("limit", "type_", "place", "also"),
        [
            ("N2D_CPUS", "n2d-standard-4", "us-central1-b", True),
            ("N2D_CPUS", "n2-standard-4", "us-central1-b", False),
            ("N2D_CPUS", "n2d-standard-2", "us-central1-b", False),
            ("N2D_CPUS", "n2d-standard-4", "europe-west4-a", False),
            ("IN_USE_ADDRESSES", "n2-standard-4", "us-central1-b", True),
            ("CPUS_ALL_REGIONS", "n2-standard-4", "europe-west4-a", True),
        ],
    )
    def test_a_quota_covers_its_family_its_region_or_the_project(
        self, provider: GCP, limit: str, type_: str, place: str, also: bool
    ) -> None:
        """Its name shows which other offers it refuses."""
        refused = Offer("s", "n2d-standard-4", 4, 1, None, None, place="us-central1-a")
        cpus = int(type_.rpartition("-")[2])
        other = Offer("s", type_, cpus, 1, None, None, place=place)
        assert provider.also_refused(refused, limit, other) == also
