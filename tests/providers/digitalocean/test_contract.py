"""DigitalOcean keeps what every provider promises."""

from __future__ import annotations

from pathlib import Path

import pytest

from onebox.providers.base import Box, Request
from onebox.providers.digitalocean import DigitalOcean

from ..contract import ProviderContract
from .conftest import PATIENCE, SETTINGS, when_up
from .server import Server


class Waiting(DigitalOcean):
    """The provider, whose boxes are waited for as the core waits for them."""

    def create(self, request: Request) -> Box:
        """Make the box, and wait until it has an address."""
        return when_up(self, super().create(request))


class TestContract(ProviderContract):
    """A cloud without any delay."""

    @pytest.fixture
    def provider(self, server: Server) -> DigitalOcean:
        """A provider for an empty account."""
        return Waiting(SETTINGS, Path("/"), patience=PATIENCE)


class TestSlowContract(ProviderContract):
    """A cloud whose lists lag and whose actions take their time."""

    @pytest.fixture
    def provider(self, server: Server) -> DigitalOcean:
        """A provider for an empty account."""
        laws = server.world.laws
        laws.lag, laws.boot, laws.action, laws.address_after = 0.15, 0.1, 0.05, 0.12
        return Waiting(SETTINGS, Path("/"), patience=PATIENCE)
