"""Create calls that DigitalOcean refuses, and the errors that they end in."""

from __future__ import annotations

import dataclasses
import re

import pytest

from onebox.errors import (
    Gone,
    NoCapacity,
    NotAllowed,
    OneboxError,
    QuotaExceeded,
    UsageError,
)
from onebox.providers.digitalocean.provider import DigitalOcean
from tests.fakes.digitalocean.server import READ_ONLY, Server

from ..boxes import MakeRequest, image_of
from .conftest import MakeProvider


class TestRefusedCreates:
    @pytest.mark.parametrize(
        ("law", "value", "error", "message"),
        [
            ("droplet_limit", 0, QuotaExceeded, "will exceed your droplet limit"),
            ("restricted", ("g-4vcpu-16gb",), QuotaExceeded, "restricted"),
            ("sold_out", ("g-4vcpu-16gb",), NoCapacity, "not available"),
        ],
    )
    def test_limits_and_missing_capacity_have_their_classes(
        self,
        server: Server,
        provider: DigitalOcean,
        make_request: MakeRequest,
        law: str,
        value: object,
        error: type[OneboxError],
        message: str,
    ) -> None:
        """Such a refusal leaves nothing."""
        setattr(server.account.behavior, law, value)
        with pytest.raises(error, match=message) as caught:
            provider.create(make_request())
        assert "\n" not in caught.value.message
        assert not server.account.droplets
        assert not server.account.firewalls

    def test_a_reserved_name_is_one_clear_error(
        self, server: Server, provider: DigitalOcean, make_request: MakeRequest
    ) -> None:
        """DigitalOcean keeps some names for itself."""
        with pytest.raises(UsageError, match="is reserved"):
            provider.create(make_request(box="localhost"))
        assert not server.account.firewalls

    def test_a_size_that_a_region_lacks_is_missing_capacity(
        self, server: Server, provider: DigitalOcean, make_request: MakeRequest
    ) -> None:
        """The next offer is tried."""
        size = dataclasses.replace(make_request().offer, place="ams2")
        with pytest.raises(NoCapacity, match="Region is not available"):
            provider.create(make_request(offer=size))

    def test_a_size_with_a_smaller_disk_is_refused(
        self, server: Server, provider: DigitalOcean, make_request: MakeRequest
    ) -> None:
        """No create call is sent."""
        with pytest.raises(NoCapacity, match="50 GB, not 100"):
            provider.create(make_request(disk=100 << 30))
        assert not server.account.firewalls
        assert server.count("POST", ".*") == 0

    def test_a_read_only_token_creates_nothing(
        self,
        server: Server,
        make_provider: MakeProvider,
        make_request: MakeRequest,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The error names the scope."""
        monkeypatch.setenv("DIGITALOCEAN_ACCESS_TOKEN", READ_ONLY)
        with pytest.raises(NotAllowed, match="scope ssh_key:create"):
            make_provider().create(make_request())
        assert not server.account.all_droplets

    @pytest.mark.parametrize("name", ["windows", "ubuntu-10.04"])
    def test_an_unknown_base_is_refused(
        self,
        server: Server,
        provider: DigitalOcean,
        make_request: MakeRequest,
        name: str,
    ) -> None:
        """The error names the known ones."""
        with pytest.raises(UsageError, match=name) as caught:
            provider.base(name)
        assert "debian-12" in caught.value.next
        with pytest.raises(UsageError):
            provider.create(make_request(base=name))
        assert not server.account.all_droplets

    def test_a_base_names_the_version_of_its_image(
        self, server: Server, provider: DigitalOcean, make_request: MakeRequest
    ) -> None:
        """A box can start from it."""
        base = provider.base("debian-12")
        assert re.fullmatch(r"debian-12-x64 \d+", base)
        provider.create(make_request(base="debian-12"))
        provider.create(make_request(base=base))
        assert {one.body["image"] for one in server.account.all_droplets} == {
            "debian-12-x64"
        }

    def test_a_deleted_image_is_gone(
        self, provider: DigitalOcean, make_request: MakeRequest
    ) -> None:
        """The error has this class."""
        request = make_request()
        with pytest.raises(Gone, match="no image"):
            provider.create(make_request(image=image_of(request)))
