"""Hetzner fulfils the provider contract."""

from __future__ import annotations

import pytest

from onebox.providers.base import Provider
from onebox.providers.values import Box
from tests.fakes.hetzner.server import Server
from tests.fakes.hetzner.world import HetznerWorld

from ..contract import CloudContract, waiting, with_methods
from ..planted import PlantedFaults
from .conftest import MakeProvider


@pytest.fixture
def world(server: Server) -> HetznerWorld:
    """The project's state."""
    return HetznerWorld(server)


@pytest.fixture
def provider(make_provider: MakeProvider, world: HetznerWorld) -> Provider:
    """
    A provider that opens ssh to the address that this machine has in *world*.

    A box that was started again gets its post-boot script, as in the stage `provision`.
    """
    provider = waiting(make_provider(ssh_cidr=None, my_ip=lambda: world.my_ip))

    def start(box: Box, deadline: float) -> Box:
        started = provider.start(box, deadline)
        script = provider.post_boot_script(started).decode("ascii")
        world.delivered[box.id] = script
        return started

    return with_methods(provider, {"start": start})


class TestContract(CloudContract):
    """The provider contract, for servers."""


class TestContractWithDelays(CloudContract):
    """The provider contract, while servers and actions take their time."""

    @pytest.fixture(autouse=True)
    def delays(self, server: Server) -> None:
        """Delay boots and actions; a server is locked meanwhile."""
        behavior = server.project.behavior
        behavior.boot, behavior.action = 0.1, 0.05


class TestPlantedFaults(PlantedFaults):
    """The contract finds each planted fault."""

    contract = TestContract
