"""DigitalOcean fulfils the provider contract."""

from __future__ import annotations

import pytest

from onebox.providers.base import Provider
from tests.fakes.digitalocean.server import Server
from tests.fakes.digitalocean.world import DigitalOceanWorld

from ..contract import CloudContract, waiting
from ..planted import PlantedFaults
from .conftest import MakeProvider


@pytest.fixture
def world(server: Server) -> DigitalOceanWorld:
    """The account's state."""
    return DigitalOceanWorld(server)


@pytest.fixture
def provider(make_provider: MakeProvider, world: DigitalOceanWorld) -> Provider:
    """A provider that opens ssh to the address that this machine has in *world*."""
    return waiting(make_provider(ssh_cidr=None, my_ip=lambda: world.my_ip))


class TestContract(CloudContract):
    """The provider contract, for droplets."""


class TestContractWithDelays(CloudContract):
    """The provider contract, while lists lag and actions take their time."""

    @pytest.fixture(autouse=True)
    def delays(self, server: Server) -> None:
        """Delay lists, boots, actions and addresses."""
        behavior = server.account.behavior
        behavior.lag, behavior.boot = 0.15, 0.1
        behavior.action, behavior.address_after = 0.05, 0.12


class TestPlantedFaults(PlantedFaults):
    """The contract finds each planted fault."""

    contract = TestContract
