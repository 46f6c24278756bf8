"""Boxes are found by their tags, in every region, and described as EC2 shows them."""

from __future__ import annotations

import dataclasses
import time

import pytest

from onebox.errors import NotAllowed, ProviderError
from onebox.providers.aws.client import Cloud
from onebox.providers.aws.provider import AWS
from onebox.providers.values import Box
from tests.fakes.aws.account import Account

from ..boxes import MakeRequest, when_up
from .conftest import MakeProvider


class TestFind:
    def test_a_new_provider_object_reads_the_same_box(
        self, make_provider: MakeProvider, make_request: MakeRequest
    ) -> None:
        """Everything about a box is in the cloud."""
        first = make_provider()
        box = when_up(first, first.create(make_request()))
        assert list(make_provider().find(box.tags.owner)) == [box]
        assert make_provider().get(box.id) == box
        first.delete(box)

    def test_find_searches_the_regions_of_the_settings(
        self, make_provider: MakeProvider, make_request: MakeRequest, account: Account
    ) -> None:
        """Other regions are searched on request, or all of them."""
        provider = make_provider(regions=["us-west-2"])
        box = when_up(provider, provider.create(make_request(zone="us-west-2b")))
        owner = box.tags.owner
        assert box.place == "us-west-2b"
        assert list(provider.find(owner)) == [box]
        alone = make_provider()
        assert list(alone.find(owner)) == []
        assert alone.get(box.id) is None
        assert alone.get(box.id, "us-west-2b") == box
        assert list(alone.find(owner, also=["us-west-2b"])) == [box]
        assert list(alone.find(owner, everywhere=True)) == [box]
        assert alone.leftovers(box.id, box.place)
        alone.delete(box)
        assert not alone.leftovers(box.id, box.place)

    def test_a_region_is_refused(
        self, make_provider: MakeProvider, make_request: MakeRequest, account: Account
    ) -> None:
        """The boxes of the other regions are listed, and the region is named."""
        provider = make_provider()
        box = when_up(provider, provider.create(make_request()))
        account.faults.denied.add("ec2:DescribeInstances eu-west-1")
        assert list(provider.find(box.tags.owner, everywhere=True)) == [box]
        (unreachable_regions,) = provider.unreachable_regions
        assert "eu-west-1" in unreachable_regions
        assert "ec2:DescribeInstances" in unreachable_regions
        with pytest.raises(NotAllowed):
            make_provider(regions=["eu-west-1"]).find(box.tags.owner)
        account.faults.clear()
        provider.delete(box)

    def test_find_fails_if_every_region_is_refused(
        self, provider: AWS, account: Account
    ) -> None:
        """An account that cannot be read is not an empty one."""
        account.faults.denied.add("ec2:DescribeVolumes")
        with pytest.raises(ProviderError):
            provider.find("owner", everywhere=True)


class TestClock:
    def test_now_is_the_time_of_awss_clock(
        self, provider: AWS, account: Account
    ) -> None:
        """The clock of this machine may be wrong."""
        account.skew = 86400.0
        provider.find("owner")
        assert abs(provider.now() - time.time() - 86400) < 600


class TestLag:
    def test_delete_waits_for_a_box_that_is_not_listed_yet(
        self, provider: AWS, make_request: MakeRequest, account: Account
    ) -> None:
        """EC2's lists lag behind a launch."""
        account.faults.lag = 3600.0
        box = provider.create(make_request())
        assert box.state == "starting"
        assert provider.get(box.id, box.place) is None
        (instance,) = account.alive(box.id)
        account.faults.lag = time.monotonic() - account.created_at[instance.id] + 0.3
        assert provider.consistency_lag >= 60
        provider.delete(box)
        assert not account.alive(box.id)
        assert not provider.leftovers(box.id)

    def test_create_does_not_repeat_a_launch_that_is_not_listed_yet(
        self, provider: AWS, make_request: MakeRequest, account: Account
    ) -> None:
        """EC2's lists lag behind a launch."""
        account.faults.lag = 0.3
        request = make_request()
        first = provider.create(request)
        changed = dataclasses.replace(request, disk=60 << 30)
        assert provider.create(changed).id == first.id
        assert len(account.instances(request.box)) == 1
        provider.delete(first)


class TestHostKey:
    def test_a_new_host_key_replaces_the_bootstrap_key(
        self, provider: AWS, make_request: MakeRequest, account: Account
    ) -> None:
        """A new host key is in the tags of machine and disk, and no longer exposed."""
        box = when_up(provider, provider.create(make_request()))
        pinned = provider.set_host_key(box, "ssh-ed25519 AAAAnew/key+==")
        assert (pinned.host_key, pinned.bootstrap_key) == (
            "ssh-ed25519 AAAAnew/key+==",
            False,
        )
        assert provider.get(box.id) == pinned
        (volume,) = account.volumes(box.id)
        tags = {tag["key"]: tag["value"] for tag in volume.get_tags()}
        assert "AAAAnew/key" in tags["onebox:hostkey"]
        assert not tags["onebox:bootstrap-key"]
        with pytest.raises(NotAllowed):
            provider.set_host_key(_foreign(box), "ssh-ed25519 AAAAother")
        provider.delete(box)


class TestConsole:
    def test_console_returns_the_last_lines(
        self, provider: AWS, make_request: MakeRequest, account: Account
    ) -> None:
        """A console without output is ""."""
        box = when_up(provider, provider.create(make_request()))
        assert provider.console(box) == ""
        (instance,) = account.alive(box.id)
        account.console[instance.id] = "\n".join(f"line {n}" for n in range(100))
        assert provider.console(box).splitlines()[-1] == "line 99"
        assert len(provider.console(box).splitlines()) == 40
        provider.delete(box)
        assert provider.console(box) == ""


class TestReasonOfAStop:
    def test_a_box_that_powered_itself_off_has_that_reason(
        self, provider: AWS, make_request: MakeRequest, account: Account
    ) -> None:
        """After its deadline, the deadline is the reason."""
        for seconds, why in ((3600, "poweroff"), (-5, "deadline")):
            request = make_request()
            deadline = time.time() + seconds
            boot_config = dataclasses.replace(request.boot_config, deadline=deadline)
            box = when_up(
                provider,
                provider.create(dataclasses.replace(request, boot_config=boot_config)),
            )
            account.power_off(account.alive(box.id)[0].id)
            account.wait(box.id, "stopped")
            stopped = provider.get(box.id)
            assert stopped is not None
            assert (stopped.state, stopped.why, stopped.disk_only) == (
                "stopped",
                why,
                False,
            )
            provider.delete(box)

    def test_an_instance_that_never_started_is_gone(
        self, provider: AWS, make_request: MakeRequest, account: Account
    ) -> None:
        """The box has the reason that EC2 gives."""
        box = provider.create(make_request())
        (instance,) = account.alive(box.id)
        account.lifecycles[instance.id].end(
            account, "Client.VolumeLimitExceeded", "Volume limit exceeded"
        )
        account.wait(box.id, "terminated")
        gone = provider.get(box.id)
        assert gone is not None
        assert (gone.state, gone.why) == ("gone", "Volume limit exceeded")
        assert list(provider.find(box.tags.owner)) == []
        provider.delete(box)


def _foreign(box: Box) -> Box:
    return dataclasses.replace(
        box, tags=dataclasses.replace(box.tags, owner="somebody-else")
    )


class TestParallelCalls:
    def test_parallel_calls_all_end_before_the_first_error(self) -> None:
        """No call is still under way when the error is raised."""
        cloud = Cloud()
        ended = []

        def do(seconds: float) -> None:
            if not seconds:
                raise ProviderError("refused")
            time.sleep(seconds)
            ended.append(seconds)

        with pytest.raises(ProviderError):
            cloud.each([0.0, 0.3], do)
        assert [0.3] == ended
