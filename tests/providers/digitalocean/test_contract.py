"""DigitalOcean keeps what every provider promises."""

from __future__ import annotations

from pathlib import Path

import pytest

from onebox.providers.base import Box, Request
from onebox.providers.digitalocean.provider import DigitalOcean
from onebox.providers.digitalocean.settings import Settings
from tests.fakes.digitalocean.server import Server
from tests.fakes.digitalocean.world import DigitalOceanWorld

from ..contract import CloudContract
from ..planted import PlantedFaults
from ..tables import table
from .conftest import SETTINGS, TIMEOUTS, when_up


class Waiting(DigitalOcean):
    """The provider, whose boxes are waited for as the core waits for them."""

    def create(self, request: Request) -> Box:
        """Make the box, and wait until it has an address."""
        return when_up(self, super().create(request))


@pytest.fixture
def world(server: Server) -> DigitalOceanWorld:
    """The account, past its API."""
    return DigitalOceanWorld(server)


@pytest.fixture
def provider(world: DigitalOceanWorld) -> DigitalOcean:
    """A provider for an empty account, open to the present address of the test."""
    settings = table(Settings, {**SETTINGS, "ssh_cidr": None})
    return Waiting(settings, Path("/"), timeouts=TIMEOUTS, my_ip=lambda: world.here)


class TestContract(CloudContract):
    """A cloud without any delay."""


class TestSlowContract(CloudContract):
    """A cloud whose lists lag and whose actions take their time."""

    @pytest.fixture(autouse=True)
    def slow(self, server: Server) -> None:
        """Have everything take its time."""
        behavior = server.account.behavior
        behavior.lag, behavior.boot, behavior.action, behavior.address_after = 0.15, 0.1, 0.05, 0.12


class TestPlanted(PlantedFaults):
    """The contract finds each fault of the table."""

    cloud, contract = "digitalocean", TestContract
