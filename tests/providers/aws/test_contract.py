"""AWS keeps what every provider promises."""

from __future__ import annotations

import pytest

from onebox.providers.aws.provider import AWS
from onebox.providers.base import Box, Provider, Request, Requirements
from tests.fakes.ec2.account import Account
from tests.fakes.ec2.world import Ec2World

from ..contract import CloudContract
from ..planted import PlantedFaults
from .conftest import MakeProvider, MakeRequest, up


class Waiting(AWS):
    """The provider, whose boxes are waited for as the core waits for them."""

    def create(self, request: Request) -> Box:
        """Make the box, and wait until it runs."""
        return up(self, super().create(request))

    def start(self, box: Box, deadline: float) -> Box:
        """Start the box, and wait until it runs."""
        return up(self, super().start(box, deadline))


@pytest.fixture
def world(account: Account) -> Ec2World:
    """The account, past its API."""
    return Ec2World(account)


class TestContract(CloudContract):
    """A cloud in which all goes well."""

    @pytest.fixture
    def provider(self, make_provider: MakeProvider, world: Ec2World) -> AWS:
        """A provider that opens ssh to the present address of the test."""
        return waiting(make_provider, world)


class TestPlanted(PlantedFaults):
    """The contract finds each fault of the table."""

    cloud, contract = "aws", TestContract

    @pytest.fixture
    def provider(self, make_provider: MakeProvider, world: Ec2World) -> AWS:
        """A provider that opens ssh to the present address of the test."""
        return waiting(make_provider, world)


def waiting(make_provider: MakeProvider, world: Ec2World) -> AWS:
    """Return a provider for a world."""
    return make_provider(kind=Waiting, ssh_cidr=None, address=lambda: world.here)


class TestSpotContract:
    """A spot box differs: it terminates instead of stopping."""

    def test_a_stopped_spot_box_keeps_its_disk(
        self, provider: Provider, make_request: MakeRequest
    ) -> None:
        """EC2 terminates the instance; a delete removes the disk too."""
        box = provider.create(make_request(spot=True))
        provider.stop(box)
        provider.stop(box)
        stopped = provider.get(box.id)
        assert stopped is not None
        assert (stopped.state, stopped.disk_only, stopped.tags) == (
            "stopped",
            True,
            box.tags,
        )
        assert list(provider.find(box.tags.owner)) == [stopped]
        left = {one.kind for one in provider.leftovers(box.id)}
        assert left == {"disk", "alarm"}
        provider.delete(stopped)
        assert provider.get(box.id) is None
        assert not provider.leftovers(box.id)

    def test_a_spot_box_shows_its_market_and_price(
        self, provider: Provider, make_request: MakeRequest
    ) -> None:
        """Its offer is spot, at the spot price."""
        box = provider.create(make_request(spot=True))
        assert (box.offer.spot, box.offer.price, box.offer.on_demand) == (
            True,
            0.03,
            0.1008,
        )
        provider.delete(box)
        assert provider.offers(Requirements("small", 4, 16 << 30, spot=True))[0].spot
