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
from onebox.providers.gcp.provider import GCP
from onebox.providers.gcp.settings import Settings

from .conftest import Make, MakeProvider, Up
from .faults import ENABLE
from .server import Google

# What passes by itself: the same call again is what is needed.
PASSING = ("429", "rate", "500", "503", "page", "cut", "garbage", "truncated")
# The same, after the call has taken effect: the answer is all that is lost.
ANSWERED = ("500-after", "503-after", "cut-after", "garbage-after", "truncated-after")
CAPACITY = (
    "ZONE_RESOURCE_POOL_EXHAUSTED",
    "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS",
    "STOCKOUT",
)


def nothing_left(google: Google, provider: GCP, box: str) -> None:
    """Assert that no trace of a box is left."""
    assert provider.get(box) is None
    assert not provider.leftovers(box)
    assert not google.project.instances.all
    assert not google.project.instances.disks


class TestOnce:
    @pytest.mark.parametrize("kind", (*PASSING, *ANSWERED))
    def test_create(
        self, google: Google, provider: GCP, make_request: Make, kind: str
    ) -> None:
        """A create whose first answer fails makes one box, never two."""
        google.fail("instances.insert", kind)
        request = make_request()
        box = provider.create(request)
        assert box.id == request.box
        assert google.project.instances.mutations == {request.box: 1}
        assert (
            len({c.query["requestId"] for c in google.calls("instances.insert")}) == 1
        )

    @pytest.mark.parametrize("kind", ["hang", "hang-after"])
    def test_create_hangs(
        self, google: Google, make_provider: MakeProvider, make_request: Make, kind: str
    ) -> None:
        """A call that is never answered is given up, and made again."""
        google.fail("instances.insert", kind)
        request = make_request()
        make_provider(timeout=0.5).create(request)
        assert google.project.instances.mutations == {request.box: 1}

    @pytest.mark.parametrize("kind", ["503", "cut", "garbage", "truncated-after"])
    def test_every_step(
        self, google: Google, provider: GCP, make_request: Make, up: Up, kind: str
    ) -> None:
        """Every call of a box's life may fail once, without the user seeing it."""
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
            google.fail(method, kind)
        request = make_request()
        box = up(provider, provider.create(request))
        provider.stop(box)
        assert provider.get(box.id) is not None
        started = provider.start(box, request.boot_config.deadline + 60)
        assert started.state == "running"
        provider.delete(started)
        nothing_left(google, provider, box.id)
        assert not google.project.firewalls
        assert not [fault for fault in google.faults if fault.times]

    def test_retry_after(
        self, google: Google, make_request: Make, make_provider: MakeProvider
    ) -> None:
        """How long to wait is Google's to say, within reason."""
        google.fail("instances.insert", "429", retry_after=1000)
        waited: list[float] = []
        provider = make_provider(sleep=waited.append)
        provider.create(make_request())
        assert 16.0 in waited


class TestForGood:
    """What does not pass ends in an error of its own, and leaves nothing."""

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
    def test_create(
        self,
        google: Google,
        provider: GCP,
        make_request: Make,
        kind: str,
        error: type[OneboxError],
    ) -> None:
        """Each refusal has its class; a box that may be there is never denied."""
        google.fail("instances.insert", kind, times=99)
        request = make_request()
        with pytest.raises(OneboxError) as caught:
            provider.create(request)
        assert type(caught.value) is error
        assert caught.value.next
        if "after" in kind:
            found = provider.get(request.box)
            assert found is not None
            provider.delete(found)
        nothing_left(google, provider, request.box)

    @pytest.mark.parametrize("kind", ["401", "forbidden", "429"])
    def test_expired_in_between(
        self, google: Google, provider: GCP, make_request: Make, kind: str
    ) -> None:
        """After an answer that was lost, a refusal does not mean that nothing is."""
        google.fail("instances.insert", "cut-after")
        google.fail("instances.insert", kind, times=99)
        request = make_request()
        with pytest.raises(Unclear):
            provider.create(request)
        assert provider.get(request.box) is not None

    @pytest.mark.parametrize("code", CAPACITY)
    def test_no_capacity(
        self, google: Google, provider: GCP, make_request: Make, code: str
    ) -> None:
        """An operation that finds no room is no capacity, and leaves nothing."""
        google.fail("instances.insert", f"op:{code}")
        request = make_request()
        with pytest.raises(NoCapacity, match=code):
            provider.create(request)
        nothing_left(google, provider, request.box)
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
    def test_operation(
        self,
        google: Google,
        provider: GCP,
        make_request: Make,
        code: str,
        error: type[OneboxError],
    ) -> None:
        """An operation that fails halfway is undone, down to a disk it has left."""
        google.fail("instances.insert", f"op:{code}")
        request = make_request()
        with pytest.raises(OneboxError, match=code) as caught:
            provider.create(request)
        assert type(caught.value) is error
        nothing_left(google, provider, request.box)

    def test_undoing_fails(
        self, google: Google, provider: GCP, make_request: Make
    ) -> None:
        """Where it is not known whether anything is left, nobody says it is not."""
        google.fail("instances.insert", "op:INTERNAL_ERROR")
        google.fail("disks.delete", "500", times=99)
        with pytest.raises(Unclear, match="not known"):
            provider.create(make_request())

    def test_no_rules(self, google: Google, provider: GCP, make_request: Make) -> None:
        """A box that nobody would be kept away from is not made."""
        google.fail("firewalls.insert", "forbidden", times=99)
        request = make_request()
        with pytest.raises(NotAllowed):
            provider.create(request)
        assert not google.calls("instances.insert")

    def test_rules_fail_later(
        self, google: Google, provider: GCP, make_request: Make
    ) -> None:
        """A box whose rules did not come into force is taken away again."""
        google.fail("globalOperations.get", "forbidden", times=1)
        request = make_request()
        with pytest.raises(NotAllowed):
            provider.create(request)
        nothing_left(google, provider, request.box)

    def test_link(self, google: Google, provider: GCP) -> None:
        """An API that is off comes with the link that switches it on."""
        google.fail("instances.aggregatedList", "disabled")
        with pytest.raises(NotAllowed) as caught:
            provider.find("owner")
        assert ENABLE in caught.value.next

    def test_private_advice(
        self, google: Google, provider: GCP, make_request: Make
    ) -> None:
        """Where public addresses are forbidden, the setting for that is named."""
        google.fail("instances.insert", "policy")
        with pytest.raises(NotAllowed) as caught:
            provider.create(make_request())
        assert "private = true" in caught.value.next

    @pytest.mark.parametrize("kind", ["429", "503", "cut", "garbage", "page"])
    def test_find(self, google: Google, provider: GCP, kind: str) -> None:
        """A list that cannot be had is an error, never an empty list."""
        google.fail("instances.aggregatedList", kind, times=99)
        with pytest.raises(ProviderError):
            provider.find("owner")

    def test_unreachable_zone(
        self, google: Google, provider: GCP, make_request: Make
    ) -> None:
        """A zone that does not answer is not an empty zone."""
        google.project.unreachable = {"europe-west4-a"}
        with pytest.raises(Unclear, match="europe-west4-a"):
            provider.find(make_request().tags.owner)

    def test_hangs_for_good(self, google: Google, make_provider: MakeProvider) -> None:
        """A server that is silent for good does not keep anybody waiting for good."""
        google.fail("instances.aggregatedList", "hang", times=99)
        with pytest.raises(ProviderError, match="no answer"):
            make_provider(timeout=0.2).find("owner")

    def test_nobody_there(self, make_provider: MakeProvider) -> None:
        """No connection at all is said as such."""
        provider = make_provider(endpoint="http://127.0.0.1:9")
        with pytest.raises(ProviderError, match="no answer from Google's API"):
            provider.find("owner")


class TestClock:
    def test_of_a_machine_that_is_wrong(self, google: Google) -> None:
        """The time is that of Google's answers, however wrong this machine's is."""
        settings = Settings(endpoint=google.address, ssh_cidr="198.51.100.7/32")
        provider = GCP(settings, Path("/"), clock=lambda: time.time() - 86400)
        provider.find("owner")
        assert abs(provider.now() - time.time()) < 600


class TestLag:
    def test_late(
        self, google: Google, provider: GCP, make_request: Make, up: Up
    ) -> None:
        """A box that Google does not show yet is waited for, and not made again."""
        google.project.instances.lag = 0.3
        request = make_request()
        box = up(provider, provider.create(request))
        assert box.state == "running"
        assert google.project.instances.mutations == {request.box: 1}

    def test_operation_late(
        self, google: Google, provider: GCP, make_request: Make
    ) -> None:
        """An operation that is not known yet is not one that has failed."""
        name = "zoneOperations.get"
        google.fail(name, "notFound", times=2)
        assert provider.create(make_request()).host

    def test_pages(self, google: Google, provider: GCP, make_request: Make) -> None:
        """Of a list, every page is read."""
        google.project.page = 1
        boxes = {provider.create(make_request()).id for _ in range(3)}
        owner = make_request().tags.owner
        assert {box.id for box in provider.find(owner)} == boxes
