from __future__ import annotations

import dataclasses

import pytest

from onebox.errors import UsageError
from onebox.providers.base import Image, Offer, Requirements, Tags
from onebox.providers.gcp import machine_families
from onebox.providers.gcp.provider import GCP

from .conftest import MakeProvider
from .server import Google

SMALL = Requirements("small", 4, 16 << 30)
TAGS = Tags("owner", "project", "main", 0.0, "0", "image")
ARM = Image("im-1", "main", "0", 0.0, 0, "aarch64", TAGS)


class TestCandidates:
    def test_cheapest_first(self, provider: GCP) -> None:
        """Types that fit come by price, each in all zones of the region."""
        found = provider.offers(SMALL)
        first = found[0]
        assert first.type == "n2d-standard-4"
        assert (
            first.on_demand
            == first.price
            == pytest.approx(4 * 0.027502 + 16 * 0.003686)
        )
        assert [one.place for one in found[:3]] == [
            "us-central1-a",
            "us-central1-b",
            "us-central1-f",
        ]
        prices = [one.price for one in found if one.price is not None]
        assert prices == sorted(prices)

    def test_spot(self, provider: GCP) -> None:
        """A spot candidate has its own price, and that on demand beside it."""
        first = provider.offers(dataclasses.replace(SMALL, spot=True))[0]
        assert first.spot
        assert first.price == pytest.approx(4 * 0.00796 + 16 * 0.001067)
        assert first.on_demand == pytest.approx(4 * 0.027502 + 16 * 0.003686)

    def test_fallback(self, provider: GCP) -> None:
        """With a fallback, on demand comes after all of spot."""
        found = provider.offers(dataclasses.replace(SMALL, spot=True, fallback=True))
        spots = [one.spot for one in found]
        assert spots == sorted(spots, reverse=True)
        assert set(spots) == {True, False}

    def test_allowed(self, provider: GCP) -> None:
        """No shared core, burst, metal, local disk or other architecture comes up."""
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

    def test_architecture(self, provider: GCP) -> None:
        """An image for Arm is offered Arm machines alone."""
        found = provider.offers(dataclasses.replace(SMALL, image=ARM))
        assert {one.arch for one in found} == {"aarch64"}
        assert found[0].type == "t2a-standard-4"
        with pytest.raises(UsageError, match="aarch64"):
            provider.offers(
                dataclasses.replace(SMALL, image=ARM, types=("n2-standard-4",))
            )

    def test_named(self, provider: GCP) -> None:
        """Types that are named come in their own order, whatever they cost."""
        need = Requirements("beast", 0, 0, types=("n2-standard-64", "e2-standard-4"))
        found = provider.offers(need)
        assert list(dict.fromkeys(one.type for one in found)) == list(need.types)

    def test_cores(self, provider: GCP) -> None:
        """Two vCPU share a core, except where a vCPU is one."""
        found = provider.offers(Requirements("x", 4, 1 << 30, types=("n2-standard-4",)))
        assert (found[0].cpus, found[0].cores) == (4, 2)
        found = provider.offers(
            Requirements("x", 4, 1 << 30, types=("t2a-standard-4",))
        )
        assert (found[0].cpus, found[0].cores) == (4, 4)

    def test_zones(self, make_provider: MakeProvider) -> None:
        """Zones that are named are tried in their order, and no others."""
        provider = make_provider(zones=["us-central1-f", "us-central1-a"])
        places = [one.place for one in provider.offers(SMALL)]
        assert places[:2] == ["us-central1-f", "us-central1-a"]
        assert set(places) == {"us-central1-f", "us-central1-a"}

    def test_regions(self, make_provider: MakeProvider) -> None:
        """More regions are looked in after the first."""
        provider = make_provider(regions=["europe-west4"])
        places = {one.place for one in provider.offers(SMALL)}
        assert "europe-west4-a" in places

    def test_wrong_region(self, make_provider: MakeProvider) -> None:
        """A region that is not there is named."""
        with pytest.raises(UsageError, match="us-middle9"):
            make_provider(region="us-middle9").offers(SMALL)

    def test_when_nothing_fits_the_nearest_are_named(self, provider: GCP) -> None:
        """A smaller box is never offered silently."""
        with pytest.raises(UsageError) as caught:
            provider.offers(Requirements("huge", 60, 1 << 40))
        assert "n2d-standard-64 (64 vCPU, 256 GB)" in caught.value.message

    def test_no_such_type(self, provider: GCP) -> None:
        """A type that is not there is named, with those most like it."""
        with pytest.raises(UsageError, match="n2-standard-5") as caught:
            provider.offers(
                Requirements("n2-standard-5", 0, 0, types=("n2-standard-5",))
            )
        assert "n2-standard-4" in caught.value.next


class TestPrices:
    @pytest.mark.parametrize("type_", ["e2-standard-4", "c3-standard-4-lssd"])
    def test_unlisted(self, provider: GCP, type_: str) -> None:
        """What the catalogue does not tell exactly has no price; never 0."""
        found = provider.offers(Requirements("x", 0, 0, types=(type_,)))
        assert {one.price for one in found} == {None}

    def test_elsewhere(self, make_provider: MakeProvider) -> None:
        """A region that the catalogue does not name has no prices."""
        found = make_provider(region="europe-west4").offers(SMALL)
        assert {one.price for one in found} == {None}

    def test_off(self, google: Google, provider: GCP) -> None:
        """Without the catalogue machines are offered too, the smallest first."""
        google.catalogue = False
        found = provider.offers(SMALL)
        assert {one.price for one in found} == {None}
        assert found[0].cpus == 4

    def test_own_endpoint(self, make_provider: MakeProvider) -> None:
        """With an endpoint of one's own the public catalogue is not asked."""
        found = make_provider(billing_endpoint=None).offers(SMALL)
        assert {one.price for one in found} == {None}

    def test_nobody_answers(self, make_provider: MakeProvider) -> None:
        """A catalogue that cannot be reached is no reason not to work."""
        provider = make_provider(billing_endpoint="http://127.0.0.1:9")
        assert provider.offers(SMALL)[0].price is None


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
        self, google: Google, provider: GCP
    ) -> None:
        """Without prices each part is None, and the reason is kept."""
        google.catalogue = False
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
    def test_disk(self, type_: str, wanted: str, found: str) -> None:
        """A family boots from what it takes, if not from what is wanted."""
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
        """Which other candidates a quota refuses is told by its name."""
        refused = Offer("s", "n2d-standard-4", 4, 1, None, None, place="us-central1-a")
        cpus = int(type_.rpartition("-")[2])
        other = Offer("s", type_, cpus, 1, None, None, place=place)
        assert provider.also_refused(refused, limit, other) == also
