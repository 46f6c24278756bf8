"""The disk of a preempted box: it is kept, found, rescued and deleted."""

from __future__ import annotations

import base64
import gzip
import time
from typing import Any

import pytest

from onebox.errors import Gone, NoCapacity, ProviderError
from onebox.providers.aws.provider import AWS
from onebox.providers.values import Box, Requirements
from tests.fakes.aws.account import Account

from ..boxes import MakeRequest, when_up


def preempted_box(
    provider: AWS, make_request: MakeRequest, account: Account, *, types: str = ""
) -> Box:
    """Return a spot box, of one of these machine types, that was preempted."""
    wishes = Requirements("large", 1, 1 << 30, spot=True, types=tuple(types.split()))
    changes = {"offer": provider.offers(wishes)[0]} if types else {}
    box = when_up(provider, provider.create(make_request(spot=True, **changes)))
    account.preempt(box.id)
    account.wait(box.id, "terminated")
    found = provider.get(box.id)
    assert found is not None
    return found


def only_volume(account: Account, box: Box) -> Any:
    """Return the only volume of a box."""
    (volume,) = account.volumes(box.id)
    return volume


class TestPreempted:
    def test_a_preempted_box_is_stopped_with_only_its_disk(
        self, provider: AWS, make_request: MakeRequest, account: Account
    ) -> None:
        """Its reason is the preemption."""
        box = when_up(provider, provider.create(make_request(spot=True)))
        with pytest.MonkeyPatch.context() as slowly:
            slowly.setattr(account.delays, "ending", 3600.0)
            account.preempt(box.id)
        going = provider.get(box.id)
        assert going is not None
        assert going.state == "stopping"
        (instance,) = account.alive(box.id)
        account.lifecycles[instance.id].due = 0.0
        account.wait(box.id, "terminated")
        found = provider.get(box.id)
        assert found is not None
        assert (found.state, found.why, found.disk_only) == (
            "stopped",
            "preempted",
            True,
        )
        assert (found.id, found.tags, found.host_key) == (
            box.id,
            box.tags,
            box.host_key,
        )
        assert (found.place, found.offer) == (box.place, box.offer)
        assert list(provider.find(box.tags.owner)) == [found]
        provider.delete(found)
        assert not account.volumes(box.id)

    def test_an_on_demand_instance_that_a_user_terminated_is_gone(
        self, provider: AWS, make_request: MakeRequest, account: Account
    ) -> None:
        """Its disk is deleted with it."""
        box = when_up(provider, provider.create(make_request()))
        (instance,) = account.alive(box.id)
        account.lifecycles[instance.id].end(
            account, "Client.UserInitiatedShutdown", "x: y"
        )
        account.wait(box.id, "terminated")
        assert provider.get(box.id) is None
        provider.delete(box)

    def test_a_kept_disk_is_deleted_like_a_box(
        self, provider: AWS, make_request: MakeRequest, account: Account
    ) -> None:
        """A second delete changes nothing."""
        box = preempted_box(provider, make_request, account)
        provider.delete(box)
        provider.delete(box)
        assert provider.get(box.id) is None
        assert not provider.leftovers(box.id)


class TestRescue:
    def test_the_instance_that_reads_a_disk_has_the_architecture_of_the_disk(
        self, provider: AWS, make_request: MakeRequest, account: Account
    ) -> None:
        """An arm64 system does not boot on x86_64."""
        box = preempted_box(provider, make_request, account, types="m7g.large")
        started = when_up(provider, provider.start(box, time.time() + 1800))
        assert "aarch64" == box.offer.arch == started.offer.arch
        provider.delete(started)

    def test_a_kept_disk_starts_in_a_small_on_demand_instance(
        self, provider: AWS, make_request: MakeRequest, account: Account
    ) -> None:
        """It is the same box."""
        box = preempted_box(provider, make_request, account)
        disk = only_volume(account, box).id
        deadline = time.time() + 1800
        started = when_up(provider, provider.start(box, deadline))
        assert (started.state, started.disk_only) == ("running", False)
        assert started.rescue and not box.rescue
        assert (started.id, started.host_key) == (box.id, box.host_key)
        assert started.deadline == deadline
        assert started.place == box.place
        assert not started.offer.spot
        assert started.offer.cpus <= 4
        (machine,) = account.alive(box.id)
        ((name, held),) = machine.get_block_device_mapping
        assert (name, held.volume_id) == (machine.root_device_name, disk)
        assert only_volume(account, box).id == disk
        assert "onebox-deadline" in user_data(machine)
        assert str(deadline) in user_data(machine)
        provider.delete(started)
        assert not provider.leftovers(box.id)
        assert not account.volumes(box.id)

    def test_a_rescued_box_stops_and_starts_again(
        self, provider: AWS, make_request: MakeRequest, account: Account
    ) -> None:
        """Like any other box."""
        box = preempted_box(provider, make_request, account)
        started = when_up(provider, provider.start(box, time.time() + 900))
        provider.stop(started)
        stopped = provider.get(box.id)
        assert stopped is not None
        assert (stopped.state, stopped.disk_only) == ("stopped", False)
        assert stopped.rescue
        again = when_up(provider, provider.start(stopped, time.time() + 900))
        assert again.state == "running"
        provider.delete(again)
        assert not account.volumes(box.id)

    @pytest.mark.parametrize(
        "action",
        [
            "RunInstances",
            "StopInstances",
            "DetachVolume",
            "DeleteVolume",
            "AttachVolume",
            "ModifyInstanceAttribute",
            "CreateTags",
            "StartInstances",
        ],
    )
    def test_a_rescue_continues_after_a_kill_at_any_step(
        self, provider: AWS, make_request: MakeRequest, account: Account, action: str
    ) -> None:
        """The disk is never lost."""
        box = preempted_box(provider, make_request, account)
        disk = only_volume(account, box).id
        account.faults.denied.add(f"ec2:{action}")
        with pytest.raises(ProviderError):
            provider.start(box, time.time() + 900)
        account.faults.clear()
        found = provider.get(box.id)
        assert found is not None
        assert found.state == "stopped"
        assert disk in [volume.id for volume in account.volumes(box.id)]
        started = when_up(provider, provider.start(found, time.time() + 900))
        assert started.state == "running"
        (machine,) = account.alive(box.id)
        assert [held.volume_id for _, held in machine.get_block_device_mapping] == [
            disk
        ]
        assert [volume.id for volume in account.volumes(box.id)] == [disk]
        provider.delete(started)
        assert not provider.leftovers(box.id)

    def test_a_delete_removes_an_unfinished_rescue(
        self, provider: AWS, make_request: MakeRequest, account: Account
    ) -> None:
        """Its instance and its disks are gone."""
        box = preempted_box(provider, make_request, account)
        account.faults.denied.add("ec2:AttachVolume")
        with pytest.raises(ProviderError):
            provider.start(box, time.time() + 900)
        account.faults.clear()
        provider.delete(box)
        assert not account.alive(box.id)
        assert not account.volumes(box.id)
        assert not provider.leftovers(box.id)

    def test_a_rescue_without_capacity_keeps_the_disk(
        self, provider: AWS, make_request: MakeRequest, account: Account
    ) -> None:
        """The error names the capacity."""
        box = preempted_box(provider, make_request, account)
        account.faults.full.add(("*", box.place, None))
        with pytest.raises(NoCapacity):
            provider.start(box, time.time() + 900)
        account.faults.full.clear()
        account.faults.full.add(("m6a.large", "*", None))
        started = when_up(provider, provider.start(box, time.time() + 900))
        assert started.offer.type != "m6a.large"
        provider.delete(started)

    def test_a_box_without_a_disk_cannot_be_started(
        self, provider: AWS, make_request: MakeRequest, account: Account
    ) -> None:
        """The error is Gone."""
        box = preempted_box(provider, make_request, account)
        provider.delete(box)
        with pytest.raises(Gone):
            provider.start(box, time.time() + 900)


def user_data(machine: Any) -> str:
    """Return the user data of an instance."""
    return gzip.decompress(base64.b64decode(str(machine.user_data))).decode()
