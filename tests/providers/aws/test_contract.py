"""AWS fulfils the provider contract."""

from __future__ import annotations

import pytest

from onebox.providers.base import Provider
from onebox.providers.values import Requirements
from tests.fakes.aws import profiles
from tests.fakes.aws.account import Account
from tests.fakes.aws.world import AWSWorld

from ..boxes import MakeRequest
from ..contract import CloudContract, IdentityContract, waiting
from ..planted import IDENTITY_FAULTS, PlantedFaults
from .conftest import MakeProvider


@pytest.fixture
def world(account: Account) -> AWSWorld:
    """The account's state."""
    return AWSWorld(account)


@pytest.fixture
def provider(make_provider: MakeProvider, world: AWSWorld) -> Provider:
    """A provider that opens ssh to the address that this machine has in *world*."""
    return waiting(make_provider(ssh_cidr=None, my_ip=lambda: world.my_ip))


class TestContract(CloudContract):
    """The provider contract, for EC2."""


class TestPlantedFaults(PlantedFaults):
    """The contract finds each planted fault."""

    contract = TestContract


class TestSpotContract:
    """A spot instance cannot be stopped and started."""

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
        assert (
            box.offer.spot,
            box.offer.machine_price,
            box.offer.machine_on_demand,
        ) == (
            True,
            0.03,
            0.1008,
        )
        provider.delete(box)
        assert provider.offers(Requirements("small", 4, 16 << 30, spot=True))[0].spot


class WithIdentity:
    """The fixture of a provider whose settings name an identity."""

    @pytest.fixture
    def provider(self, make_provider: MakeProvider, account: Account) -> Provider:
        """It attaches an instance profile with a role."""
        profiles.add("train", "train-role")
        return waiting(make_provider(instance_profile="train"))


class TestIdentityContract(WithIdentity, IdentityContract):
    """The contract of identities, for EC2."""


class TestPlantedIdentityFaults(WithIdentity, PlantedFaults):
    """The contract of identities finds each planted fault."""

    contract = TestIdentityContract
    faults = IDENTITY_FAULTS
