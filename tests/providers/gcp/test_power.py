"""Stop, start and preemption of an instance."""

from __future__ import annotations

import dataclasses
import json
import math
import time

import pytest

from onebox.errors import Gone, NoCapacity, ProviderError
from onebox.providers.gcp.provider import GCP
from onebox.providers.values import Box
from tests.fakes.gcp.server import Server

from ..boxes import MakeRequest, when_up
from .conftest import OFFER
from .test_creation import metadata


@pytest.fixture
def box(provider: GCP, make_request: MakeRequest) -> Box:
    """A running spot box."""
    size = dataclasses.replace(OFFER, spot=True)
    return when_up(provider, provider.create(make_request(offer=size)))


def settled(server: Server, provider: GCP, box: Box) -> Box:
    """Return the box once it has stopped."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        found = provider.get(box.id, box.place)
        assert found is not None
        if found.state == "stopped":
            return found
        time.sleep(0.01)
    raise AssertionError("it did not stop")


class TestReasonOfAStop:
    def test_a_preempted_box_has_that_reason_and_its_disk(
        self, server: Server, provider: GCP, box: Box
    ) -> None:
        """Also while it is still stopping."""
        server.account.operations.seconds = 3600.0
        server.account.preempt(box.id)
        going = provider.get(box.id, box.place)
        assert going is not None
        assert (going.state, going.why) == ("stopping", "preempted")
        server.account.later.hurry()
        gone = settled(server, provider, box)
        assert (gone.state, gone.why) == ("stopped", "preempted")
        assert server.account.instances.disks
        assert [found.why for found in provider.find(box.tags.owner)] == ["preempted"]

    def test_a_box_that_powered_itself_off_was_not_preempted(
        self, server: Server, provider: GCP, box: Box
    ) -> None:
        """No operation of Google's has ended it."""
        server.account.power_off(box.id)
        assert settled(server, provider, box).why == "poweroff"

    def test_a_stopped_box_has_that_reason(
        self, server: Server, provider: GCP, box: Box
    ) -> None:
        """A stop operation has ended it."""
        provider.stop(box)
        assert settled(server, provider, box).why == "stopped"

    def test_a_box_that_ended_at_its_deadline_has_that_reason(
        self, server: Server, provider: GCP, make_request: MakeRequest
    ) -> None:
        """The times are close to each other."""
        request = make_request()
        boot_config = dataclasses.replace(
            request.boot_config, deadline=time.time() + 1.5
        )
        request = dataclasses.replace(request, boot_config=boot_config)
        box = when_up(provider, provider.create(request))
        server.account.power_off(box.id)
        assert settled(server, provider, box).why == "deadline"

    def test_a_box_is_read_without_the_permission_for_operations(
        self, server: Server, provider: GCP, box: Box
    ) -> None:
        """Its reason is unknown."""
        provider.stop(box)
        server.fail("zoneOperations.list", "forbidden", times=99)
        [found] = provider.find(box.tags.owner)
        assert (found.state, found.why) == ("stopped", "")

    def test_a_restarted_box_is_no_longer_preempted(
        self, server: Server, provider: GCP, box: Box
    ) -> None:
        """The operation is older than the start."""
        server.account.preempt(box.id)
        gone = settled(server, provider, box)
        time.sleep(0.01)
        again = provider.start(gone, time.time() + 600)
        assert (again.state, again.why) == ("running", "")
        server.account.power_off(box.id)
        assert settled(server, provider, box).why == "poweroff"


class TestStart:
    def test_the_new_deadline_is_set_before_the_start(
        self, server: Server, provider: GCP, box: Box
    ) -> None:
        """A box never runs without one."""
        provider.stop(box)
        server.requests.clear()
        provider.start(box, time.time() + 600)
        wanted = ["setScheduling", "setMetadata", "setLabels", "start"]
        order = [one.method.rpartition(".")[2] for one in server.requests]
        assert [name for name in order if name in wanted] == wanted

    def test_nothing_keeps_the_former_deadline(
        self, server: Server, provider: GCP, box: Box
    ) -> None:
        """Schedule, labels, record and boot program change."""
        provider.stop(box)
        deadline = time.time() + 86400
        started = provider.start(box, deadline)
        assert started.deadline == started.tags.deadline == deadline
        labels = server.account.instance(box.id)["labels"]
        assert labels["onebox-expires"] == str(int(deadline))
        items = metadata(server.account.instance(box.id))
        for value in items.values():
            assert str(math.ceil(box.deadline)) not in value
            assert json.dumps(box.deadline) not in value
        assert str(math.ceil(deadline)) in items["user-data"]
        assert json.dumps(deadline) in items["user-data"]
        scheduling = server.account.instance(box.id)["scheduling"]
        assert int(scheduling["maxRunDuration"]["seconds"]) > 86400
        assert scheduling["provisioningModel"] == "SPOT"

    def test_only_the_deadline_of_the_boot_program_changes(
        self, server: Server, provider: GCP, box: Box
    ) -> None:
        """The rest of it stays."""
        before = metadata(server.account.instance(box.id))
        provider.stop(box)
        provider.start(box, box.deadline)
        assert metadata(server.account.instance(box.id)) == before

    def test_a_spot_box_without_capacity_starts_as_a_smaller_type(
        self, server: Server, provider: GCP, make_request: MakeRequest
    ) -> None:
        """A note gives the reason."""
        size = dataclasses.replace(OFFER, type="n2d-standard-64", cpus=64, spot=True)
        box = when_up(provider, provider.create(make_request(offer=size)))
        provider.stop(box)
        server.fail("instances.start", "op:ZONE_RESOURCE_POOL_EXHAUSTED")
        started = provider.start(box, time.time() + 600)
        assert started.state == "running"
        assert started.rescue and not box.rescue
        assert (started.offer.type, started.offer.cpus) == ("n2d-standard-4", 4)
        assert (started.offer.name, started.offer.spot) == (box.offer.name, True)
        assert started.offer.machine_price == pytest.approx(4 * 0.00796 + 16 * 0.001067)
        assert "n2d-standard-4" in started.notes[-1]
        assert started.host_key == box.host_key
        assert started.deadline > box.created
        provider.delete(started)
        assert not server.account.instances.disks

    @pytest.mark.parametrize("spot", [True, False])
    def test_a_box_without_any_capacity_stays_stopped(
        self, server: Server, provider: GCP, make_request: MakeRequest, spot: bool
    ) -> None:
        """Its disk stays."""
        size = dataclasses.replace(OFFER, type="n2d-standard-64", spot=spot)
        box = when_up(provider, provider.create(make_request(offer=size)))
        provider.stop(box)
        server.fail("instances.start", "op:ZONE_RESOURCE_POOL_EXHAUSTED", times=9)
        with pytest.raises(NoCapacity):
            provider.start(box, time.time() + 600)
        found = provider.get(box.id)
        assert found is not None
        assert found.state == "stopped"
        assert len(server.calls("instances.setMachineType")) == spot

    def test_a_stopping_box_is_started_once_it_has_stopped(
        self, server: Server, provider: GCP, box: Box
    ) -> None:
        """A preemption takes some time."""
        server.account.operations.seconds = 0.2
        server.account.preempt(box.id)
        assert provider.start(box, time.time() + 600).state == "running"

    def test_starting_a_running_box_changes_nothing(
        self, server: Server, provider: GCP, box: Box
    ) -> None:
        """No call is made."""
        assert provider.start(box, time.time() + 600) == box
        assert not server.calls("instances.setMetadata")

    def test_a_missing_box_cannot_be_started(self, provider: GCP, box: Box) -> None:
        """A stop of it succeeds."""
        provider.delete(box)
        with pytest.raises(Gone):
            provider.start(box, time.time() + 600)
        provider.stop(box)

    def test_a_box_is_never_started_without_its_rules(
        self, server: Server, provider: GCP, box: Box
    ) -> None:
        """They are created again first."""
        provider.stop(box)
        server.account.firewalls.clear()
        provider.start(box, time.time() + 600)
        assert len(server.account.firewalls) == 2

    def test_a_box_with_a_changed_boot_program_is_not_started(
        self, server: Server, provider: GCP, box: Box
    ) -> None:
        """It would have no deadline."""
        provider.stop(box)
        for item in server.account.instance(box.id)["metadata"]["items"]:
            if item["key"] == "user-data":
                item["value"] = "#cloud-config\n{}"
        with pytest.raises(ProviderError, match="deadline"):
            provider.start(box, time.time() + 600)
        assert not server.calls("instances.start")
