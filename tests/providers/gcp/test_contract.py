"""Google Cloud keeps what every provider promises."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from onebox.providers.base import Box, Request
from onebox.providers.gcp.provider import GCP
from onebox.providers.gcp.settings import Settings
from tests.fakes.compute.server import Server
from tests.fakes.compute.world import ComputeWorld

from ..contract import CloudContract
from ..planted import PlantedFaults
from .conftest import Up, hurry


@pytest.fixture
def world(server: Server) -> ComputeWorld:
    """The project, past its API."""
    return ComputeWorld(server)


@pytest.fixture
def waiting(server: Server, world: ComputeWorld, up: Up) -> GCP:
    """A provider whose boxes are waited for, as the core waits for them."""

    class Waiting(GCP):
        def create(self, request: Request) -> Box:
            """Make the box, and wait until its host key is known."""
            return up(self, super().create(request))

    settings = Settings(endpoint=server.address, billing_endpoint=server.address)
    return Waiting(settings, Path("/"), sleep=hurry, my_ip=lambda: world.here)


class TestContract(CloudContract):
    """A project in which all goes well."""

    own_host_key = True

    @pytest.fixture
    def provider(self, server: Server, waiting: GCP) -> Iterator[GCP]:
        """A provider that leaves nothing behind."""
        yield waiting
        assert not server.account.firewalls
        assert not server.account.instances.disks


class TestPlanted(PlantedFaults):
    """The contract finds each fault of the table."""

    cloud, contract = "gcp", TestContract

    @pytest.fixture
    def provider(self, waiting: GCP) -> GCP:
        """A provider without a fault so far."""
        return waiting
