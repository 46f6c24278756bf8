"""Google Cloud fulfils the provider contract."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from onebox.providers.base import Provider
from tests.fakes.gcp.credentials import EMAIL
from tests.fakes.gcp.server import Server
from tests.fakes.gcp.world import GCPWorld

from ..contract import CloudContract, IdentityContract, waiting
from ..planted import IDENTITY_FAULTS, PlantedFaults
from .conftest import MakeProvider


@pytest.fixture
def world(server: Server) -> GCPWorld:
    """The project's state."""
    return GCPWorld(server)


@pytest.fixture
def provider(make_provider: MakeProvider, world: GCPWorld) -> Provider:
    """A provider that opens ssh to the address that this machine has in *world*."""
    return waiting(make_provider(ssh_cidr=None, my_ip=lambda: world.my_ip))


class TestContract(CloudContract):
    """The provider contract, for Compute Engine."""

    own_host_key = True

    @pytest.fixture
    def provider(self, provider: Provider, server: Server) -> Iterator[Provider]:
        """The same provider; afterwards no rule and no disk may be left."""
        yield provider
        assert not server.account.firewalls
        assert not server.account.instances.disks


class TestPlantedFaults(PlantedFaults):
    """The contract finds each planted fault that an instance can have."""

    contract = TestContract
    lacks = {  # noqa: RUF012 (a constant)
        "bootstrap key": "boxes generate their own host keys, which are never exposed",
    }


class WithIdentity:
    """The fixture of a provider whose settings name an identity."""

    @pytest.fixture
    def provider(self, make_provider: MakeProvider, server: Server) -> Provider:
        """It attaches a service account of the project."""
        server.account.service_accounts[EMAIL] = True
        return waiting(make_provider(service_account=EMAIL))


class TestIdentityContract(WithIdentity, IdentityContract):
    """The contract of identities, for Compute Engine."""


class TestPlantedIdentityFaults(WithIdentity, PlantedFaults):
    """The contract of identities finds each planted fault."""

    contract = TestIdentityContract
    faults = IDENTITY_FAULTS
