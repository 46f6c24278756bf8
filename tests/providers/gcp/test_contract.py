from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from onebox.providers.base import Box, Provider, Request
from onebox.providers.gcp import GCP

from ..contract import ProviderContract
from .conftest import Up, hurry
from .server import Google


class TestContract(ProviderContract):
    """Google Cloud keeps what every provider promises."""

    own_host_key = True

    @pytest.fixture
    def provider(self, google: Google, up: Up) -> Iterator[Provider]:
        """A provider whose boxes are waited for, as the core waits for them."""

        class Waiting(GCP):
            def create(self, request: Request) -> Box:
                """Make the box, and wait until its host key is known."""
                return up(self, super().create(request))

        table = {"endpoint": google.address, "ssh_cidr": "198.51.100.7/32"}
        yield Waiting(table, Path("/"), sleep=hurry)
        assert not google.project.firewalls
        assert not google.project.instances.disks
