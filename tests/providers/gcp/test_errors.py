"""Calls that fail, are lost or are refused, and the errors that they end in."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from onebox.errors import (
    NoCapacity,
    NotAllowed,
    OneboxError,
    ProviderError,
    QuotaExceeded,
    Throttled,
    Unclear,
)
from onebox.providers.gcp.client import Cloud
from onebox.providers.gcp.provider import GCP
from onebox.providers.gcp.settings import GCPSettings
from tests.fakes.gcp.faults import ENABLE
from tests.fakes.gcp.server import Server

from ..boxes import MakeRequest, when_up
from .conftest import MakeProvider

# Faults that pass: a repeated call succeeds.
PASSING = ("429", "rate", "500", "503", "page", "cut", "garbage", "truncated")
# The same faults after the call took effect: only the response is lost.
ANSWERED = ("500-after", "503-after", "cut-after", "garbage-after", "truncated-after")
CAPACITY = (
    "ZONE_RESOURCE_POOL_EXHAUSTED",
    "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS",
    "STOCKOUT",
)


def nothing_left(server: Server, provider: GCP, box: str) -> None:
    """Assert that no object of a box is left."""
    assert provider.get(box) is None
    assert not provider.leftovers(box)
    assert not server.account.instances.all
    assert not server.account.instances.disks


class TestRepeatedCalls:
    @pytest.mark.parametrize("kind", (*PASSING, *ANSWERED))
    def test_a_create_that_fails_first_makes_one_box(
        self, server: Server, provider: GCP, make_request: MakeRequest, kind: str
    ) -> None:
        """The second attempt has the same request id."""
        server.fail("instances.insert", kind)
        request = make_request()
        box = provider.create(request)
        assert box.id == request.box
        assert server.account.instances.mutations == {request.box: 1}
        assert (
            len({c.query["requestId"] for c in server.calls("instances.insert")}) == 1
        )

    @pytest.mark.parametrize("kind", ["hang", "hang-after"])
    def test_a_create_without_a_response_is_repeated(
        self,
        server: Server,
        make_provider: MakeProvider,
        make_request: MakeRequest,
        kind: str,
    ) -> None:
        """It ends by its time limit first."""
        server.fail("instances.insert", kind)
        request = make_request()
        make_provider(timeout=0.5).create(request)
        assert server.account.instances.mutations == {request.box: 1}

    @pytest.mark.parametrize("kind", ["503", "cut", "garbage", "truncated-after"])
    def test_every_call_may_fail_once(
        self, server: Server, provider: GCP, make_request: MakeRequest, kind: str
    ) -> None:
        """The user does not notice."""
        for method in (
            "instances.get",
            "instances.aggregatedList",
            "instances.getGuestAttributes",
            "instances.stop",
            "instances.start",
            "instances.setMetadata",
            "instances.setScheduling",
            "instances.setLabels",
            "instances.delete",
            "zoneOperations.get",
            "zoneOperations.list",
            "globalOperations.get",
            "firewalls.list",
            "firewalls.insert",
            "firewalls.delete",
            "disks.list",
        ):
            server.fail(method, kind)
        request = make_request()
        box = when_up(provider, provider.create(request))
        provider.stop(box)
        assert provider.get(box.id) is not None
        started = provider.start(box, request.boot_config.deadline + 60)
        assert started.state == "running"
        provider.delete(started)
        nothing_left(server, provider, box.id)
        assert not server.account.firewalls
        assert not [fault for fault in server.faults if fault.times]

    def test_retry_after_is_waited_for_within_limits(
        self, server: Server, make_request: MakeRequest, make_provider: MakeProvider
    ) -> None:
        """Google's value replaces the usual pause."""
        server.fail("instances.insert", "429", retry_after=1000)
        waited: list[float] = []
        provider = make_provider(sleep=waited.append)
        provider.create(make_request())
        assert 16.0 in waited


class TestFinalRefusals:
    """A fault that does not pass ends in its own error, and leaves nothing."""

    @pytest.mark.parametrize(
        ("kind", "error"),
        [
            ("429", Throttled),
            ("rate", Throttled),
            ("500", Unclear),
            ("503-after", Unclear),
            ("cut", Unclear),
            ("cut-after", Unclear),
            ("garbage", Unclear),
            ("401", NotAllowed),
            ("disabled", NotAllowed),
            ("forbidden", NotAllowed),
            ("billing", NotAllowed),
            ("policy", NotAllowed),
            ("quota", QuotaExceeded),
            ("stockout", NoCapacity),
        ],
    )
    def test_each_refusal_of_a_create_has_its_class(
        self,
        server: Server,
        provider: GCP,
        make_request: MakeRequest,
        kind: str,
        error: type[OneboxError],
    ) -> None:
        """A box that may exist is never reported as not created."""
        server.fail("instances.insert", kind, times=99)
        request = make_request()
        with pytest.raises(OneboxError) as caught:
            provider.create(request)
        assert type(caught.value) is error
        assert caught.value.next
        if "after" in kind:
            found = provider.get(request.box)
            assert found is not None
            provider.delete(found)
        nothing_left(server, provider, request.box)

    @pytest.mark.parametrize("kind", ["401", "forbidden", "429"])
    def test_a_refusal_after_a_lost_response_is_unclear(
        self, server: Server, provider: GCP, make_request: MakeRequest, kind: str
    ) -> None:
        """The credentials expired in between."""
        server.fail("instances.insert", "cut-after")
        server.fail("instances.insert", kind, times=99)
        request = make_request()
        with pytest.raises(Unclear):
            provider.create(request)
        assert provider.get(request.box) is not None

    @pytest.mark.parametrize("code", CAPACITY)
    def test_an_operation_without_capacity_leaves_nothing(
        self, server: Server, provider: GCP, make_request: MakeRequest, code: str
    ) -> None:
        """It fails after it was accepted."""
        server.fail("instances.insert", f"op:{code}")
        request = make_request()
        with pytest.raises(NoCapacity, match=code):
            provider.create(request)
        nothing_left(server, provider, request.box)
        assert provider.create(make_request()).host

    @pytest.mark.parametrize(
        ("code", "error"),
        [
            ("QUOTA_EXCEEDED", QuotaExceeded),
            ("PERMISSIONS_ERROR", NotAllowed),
            ("RESOURCE_OPERATION_RATE_EXCEEDED", Throttled),
            ("INTERNAL_ERROR", ProviderError),
        ],
    )
    def test_a_failed_operation_is_undone(
        self,
        server: Server,
        provider: GCP,
        make_request: MakeRequest,
        code: str,
        error: type[OneboxError],
    ) -> None:
        """The disk that it has left is deleted."""
        server.fail("instances.insert", f"op:{code}")
        request = make_request()
        with pytest.raises(OneboxError, match=code) as caught:
            provider.create(request)
        assert type(caught.value) is error
        nothing_left(server, provider, request.box)

    def test_a_failed_undo_is_unclear(
        self, server: Server, provider: GCP, make_request: MakeRequest
    ) -> None:
        """Something may be left."""
        server.fail("instances.insert", "op:INTERNAL_ERROR")
        server.fail("disks.delete", "500", times=99)
        with pytest.raises(Unclear, match="not known"):
            provider.create(make_request())

    def test_without_its_rules_no_box_is_created(
        self, server: Server, provider: GCP, make_request: MakeRequest
    ) -> None:
        """Everyone could reach its ssh port."""
        server.fail("firewalls.insert", "forbidden", times=99)
        request = make_request()
        with pytest.raises(NotAllowed):
            provider.create(request)
        assert not server.calls("instances.insert")

    def test_a_box_whose_rules_fail_later_is_deleted(
        self, server: Server, provider: GCP, make_request: MakeRequest
    ) -> None:
        """Everyone could reach its ssh port."""
        server.fail("globalOperations.get", "forbidden", times=1)
        request = make_request()
        with pytest.raises(NotAllowed):
            provider.create(request)
        nothing_left(server, provider, request.box)

    def test_a_disabled_api_has_the_link_that_enables_it(
        self, server: Server, provider: GCP
    ) -> None:
        """Google's response contains it."""
        server.fail("instances.aggregatedList", "disabled")
        with pytest.raises(NotAllowed) as caught:
            provider.find("owner")
        assert ENABLE in caught.value.next

    def test_a_forbidden_public_address_names_the_setting(
        self, server: Server, provider: GCP, make_request: MakeRequest
    ) -> None:
        """A policy of the organization forbids it."""
        server.fail("instances.insert", "policy")
        with pytest.raises(NotAllowed) as caught:
            provider.create(make_request())
        assert "private = true" in caught.value.next

    @pytest.mark.parametrize("kind", ["429", "503", "cut", "garbage", "page"])
    def test_a_list_that_fails_is_an_error(
        self, server: Server, provider: GCP, kind: str
    ) -> None:
        """It is never an empty list."""
        server.fail("instances.aggregatedList", kind, times=99)
        with pytest.raises(ProviderError):
            provider.find("owner")

    def test_a_zone_that_does_not_answer_is_an_error(
        self, server: Server, provider: GCP, make_request: MakeRequest
    ) -> None:
        """It is not an empty zone."""
        server.account.unreachable = {"europe-west4-a"}
        with pytest.raises(Unclear, match="europe-west4-a"):
            provider.find(make_request().tags.owner)

    def test_a_silent_server_is_given_up(
        self, server: Server, make_provider: MakeProvider
    ) -> None:
        """The time limit ends each attempt."""
        server.fail("instances.aggregatedList", "hang", times=99)
        with pytest.raises(ProviderError, match="no answer"):
            make_provider(timeout=0.2).find("owner")

    def test_a_missing_connection_is_reported(
        self, make_provider: MakeProvider
    ) -> None:
        """The error names the network."""
        provider = make_provider(endpoint="http://127.0.0.1:9")
        with pytest.raises(ProviderError, match="no answer from Google's API"):
            provider.find("owner")


class TestClock:
    def test_now_is_the_time_of_googles_clock(self, server: Server) -> None:
        """The clock of this machine may be wrong."""
        settings = GCPSettings(endpoint=server.address, ssh_cidr="198.51.100.7/32")
        cloud = Cloud(settings, clock=lambda: time.time() - 86400)
        provider = GCP(settings, Path("/"), cloud=cloud)
        provider.find("owner")
        assert abs(provider.now() - time.time()) < 600


class TestLag:
    def test_a_box_that_does_not_show_yet_is_waited_for(
        self, server: Server, provider: GCP, make_request: MakeRequest
    ) -> None:
        """It is not created again."""
        server.account.instances.lag = 0.3
        request = make_request()
        box = when_up(provider, provider.create(request))
        assert box.state == "running"
        assert server.account.instances.mutations == {request.box: 1}

    def test_an_operation_that_is_not_known_yet_is_waited_for(
        self, server: Server, provider: GCP, make_request: MakeRequest
    ) -> None:
        """It has not failed."""
        name = "zoneOperations.get"
        server.fail(name, "notFound", times=2)
        assert provider.create(make_request()).host

    def test_a_list_is_read_to_its_last_page(
        self, server: Server, provider: GCP, make_request: MakeRequest
    ) -> None:
        """Each page has the token of the next."""
        server.account.page = 1
        boxes = {provider.create(make_request()).id for _ in range(3)}
        owner = make_request().tags.owner
        assert {box.id for box in provider.find(owner)} == boxes
