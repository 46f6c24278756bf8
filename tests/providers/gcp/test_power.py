from __future__ import annotations

import dataclasses
import json
import math
import time

import pytest

from onebox.errors import Gone, NoCapacity, ProviderError
from onebox.providers.base import Box
from onebox.providers.gcp.provider import GCP

from .conftest import SIZE, Make, Up
from .server import Google
from .test_launch import metadata


@pytest.fixture
def box(provider: GCP, make_request: Make, up: Up) -> Box:
    """A spot box that runs."""
    size = dataclasses.replace(SIZE, spot=True)
    return up(provider, provider.create(make_request(offer=size)))


def settled(google: Google, provider: GCP, box: Box) -> Box:
    """Return the box once it has stopped."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        found = provider.get(box.id, box.place)
        assert found is not None
        if found.state == "stopped":
            return found
        time.sleep(0.01)
    raise AssertionError("it did not stop")


class TestWhy:
    def test_preempted(self, google: Google, provider: GCP, box: Box) -> None:
        """A box that was taken back says so, also while it goes, and keeps its disk."""
        google.project.operations.seconds = 3600.0
        google.project.preempt(box.id)
        going = provider.get(box.id, box.place)
        assert going is not None
        assert (going.state, going.why) == ("stopping", "preempted")
        google.project.later.hurry()
        gone = settled(google, provider, box)
        assert (gone.state, gone.why) == ("stopped", "preempted")
        assert google.project.instances.disks
        assert [found.why for found in provider.find(box.tags.owner)] == ["preempted"]

    def test_powered_off(self, google: Google, provider: GCP, box: Box) -> None:
        """A box that switched itself off was not taken back."""
        google.project.power_off(box.id)
        assert settled(google, provider, box).why == "poweroff"

    def test_stopped(self, google: Google, provider: GCP, box: Box) -> None:
        """A box that was stopped says so."""
        provider.stop(box)
        assert settled(google, provider, box).why == "stopped"

    def test_deadline(
        self, google: Google, provider: GCP, make_request: Make, up: Up
    ) -> None:
        """A box that ended at its deadline says so."""
        request = make_request()
        boot_config = dataclasses.replace(
            request.boot_config, deadline=time.time() + 1.5
        )
        request = dataclasses.replace(request, boot_config=boot_config)
        box = up(provider, provider.create(request))
        google.project.power_off(box.id)
        assert settled(google, provider, box).why == "deadline"

    def test_may_not_look(self, google: Google, provider: GCP, box: Box) -> None:
        """Who may not look at operations sees the box all the same."""
        provider.stop(box)
        google.fail("zoneOperations.list", "forbidden", times=99)
        [found] = provider.find(box.tags.owner)
        assert (found.state, found.why) == ("stopped", "")

    def test_forgotten(self, google: Google, provider: GCP, box: Box) -> None:
        """A box that was taken back once, and started again, is not taken back now."""
        google.project.preempt(box.id)
        gone = settled(google, provider, box)
        time.sleep(0.01)
        again = provider.start(gone, time.time() + 600)
        assert (again.state, again.why) == ("running", "")
        google.project.power_off(box.id)
        assert settled(google, provider, box).why == "poweroff"


class TestStart:
    def test_armed_before(self, google: Google, provider: GCP, box: Box) -> None:
        """The new deadline is in place before the box runs."""
        provider.stop(box)
        google.seen.clear()
        provider.start(box, time.time() + 600)
        wanted = ["setScheduling", "setMetadata", "setLabels", "start"]
        order = [one.method.rpartition(".")[2] for one in google.seen]
        assert [name for name in order if name in wanted] == wanted

    def test_new_deadline(self, google: Google, provider: GCP, box: Box) -> None:
        """Nothing of the former deadline is left, in what the box is told either."""
        provider.stop(box)
        deadline = time.time() + 86400
        started = provider.start(box, deadline)
        assert started.deadline == started.tags.expires == deadline
        labels = google.project.instance(box.id)["labels"]
        assert labels["onebox-expires"] == str(int(deadline))
        told = metadata(google.project.instance(box.id))
        for value in told.values():
            assert str(math.ceil(box.deadline)) not in value
            assert json.dumps(box.deadline) not in value
        assert str(math.ceil(deadline)) in told["user-data"]
        assert json.dumps(deadline) in told["user-data"]
        scheduling = google.project.instance(box.id)["scheduling"]
        assert int(scheduling["maxRunDuration"]["seconds"]) > 86400
        assert scheduling["provisioningModel"] == "SPOT"

    def test_user_data_stays(self, google: Google, provider: GCP, box: Box) -> None:
        """All that a box was told, other than the time, is told again."""
        before = metadata(google.project.instance(box.id))
        provider.stop(box)
        provider.start(box, box.deadline)
        assert metadata(google.project.instance(box.id)) == before

    def test_smaller(
        self, google: Google, provider: GCP, make_request: Make, up: Up
    ) -> None:
        """A spot box without room comes up small, and says so, with its disk."""
        size = dataclasses.replace(SIZE, type="n2d-standard-64", cpus=64, spot=True)
        box = up(provider, provider.create(make_request(offer=size)))
        provider.stop(box)
        google.fail("instances.start", "op:ZONE_RESOURCE_POOL_EXHAUSTED")
        started = provider.start(box, time.time() + 600)
        assert started.state == "running"
        assert started.rescue and not box.rescue
        assert (started.offer.type, started.offer.cpus) == ("n2d-standard-4", 4)
        assert (started.offer.name, started.offer.spot) == (box.offer.name, True)
        assert started.offer.price == pytest.approx(4 * 0.00796 + 16 * 0.001067)
        assert "n2d-standard-4" in started.notes[-1]
        assert started.host_key == box.host_key
        assert started.deadline > box.created
        provider.delete(started)
        assert not google.project.instances.disks

    @pytest.mark.parametrize("spot", [True, False])
    def test_no_capacity(
        self, google: Google, provider: GCP, make_request: Make, up: Up, spot: bool
    ) -> None:
        """A box that finds no room at all stays, stopped, with its disk."""
        size = dataclasses.replace(SIZE, type="n2d-standard-64", spot=spot)
        box = up(provider, provider.create(make_request(offer=size)))
        provider.stop(box)
        google.fail("instances.start", "op:ZONE_RESOURCE_POOL_EXHAUSTED", times=9)
        with pytest.raises(NoCapacity):
            provider.start(box, time.time() + 600)
        found = provider.get(box.id)
        assert found is not None
        assert found.state == "stopped"
        assert len(google.calls("instances.setMachineType")) == spot

    def test_still_going_down(self, google: Google, provider: GCP, box: Box) -> None:
        """A box that is just being taken back is started once it has stopped."""
        google.project.operations.seconds = 0.2
        google.project.preempt(box.id)
        assert provider.start(box, time.time() + 600).state == "running"

    def test_running(self, google: Google, provider: GCP, box: Box) -> None:
        """Starting what runs changes nothing."""
        assert provider.start(box, time.time() + 600) == box
        assert not google.calls("instances.setMetadata")

    def test_gone(self, provider: GCP, box: Box) -> None:
        """What is not there cannot be started, and stopping it is fine."""
        provider.delete(box)
        with pytest.raises(Gone):
            provider.start(box, time.time() + 600)
        provider.stop(box)

    def test_rules(self, google: Google, provider: GCP, box: Box) -> None:
        """A box is never started without the rules that protect it."""
        provider.stop(box)
        google.project.firewalls.clear()
        provider.start(box, time.time() + 600)
        assert len(google.project.firewalls) == 2

    def test_not_ours_any_more(self, google: Google, provider: GCP, box: Box) -> None:
        """A box whose arming somebody has changed is not started without a deadline."""
        provider.stop(box)
        for item in google.project.instance(box.id)["metadata"]["items"]:
            if item["key"] == "user-data":
                item["value"] = "#cloud-config\n{}"
        with pytest.raises(ProviderError, match="deadline"):
            provider.start(box, time.time() + 600)
        assert not google.calls("instances.start")
