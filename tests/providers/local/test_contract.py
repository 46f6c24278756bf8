"""The local provider fulfils the provider contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from onebox.providers.local.provider import Local
from onebox.providers.local.settings import LocalSettings
from tests.fakes.world import FOREIGN_IP

from ..boxes import MakeRequest
from ..contract import ProviderContract
from ..planted import PlantedFaults
from .world import LocalWorld


@pytest.fixture
def provider(place: Path) -> Local:
    """A local provider in an empty directory."""
    return Local(LocalSettings(), place / "root")


@pytest.fixture
def world(place: Path) -> LocalWorld:
    """The directory of the boxes."""
    return LocalWorld(place / "root")


class TestContract(ProviderContract):
    """The provider contract, for boxes on this machine."""

    def test_only_this_machine_reaches_ssh(
        self, provider: Local, world: LocalWorld, make_request: MakeRequest
    ) -> None:
        """The ssh server of a box listens only on loopback."""
        box = provider.create(make_request())
        assert world.ssh_open_to(box.id, "127.0.0.1")
        assert not world.ssh_open_to(box.id, FOREIGN_IP)


class TestPlantedFaults(PlantedFaults):
    """The contract finds each planted fault that a local box can have."""

    contract = TestContract
    lacks = {  # noqa: RUF012 (a constant)
        "machine types": "this machine is the only offer",
        "firewall": "the ssh server of a box listens only on loopback",
        "network": "no response of a local call can get lost",
        "packer": "Packer builds no images for local boxes",
        "bootstrap key": "boxes keep the host key of the request",
    }
