"""A deleted box is gone according to EC2, and nothing else was touched."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext

import pytest

from onebox.errors import NotAllowed, OneboxError
from onebox.providers.aws.provider import AWS
from tests.fakes.aws.account import Account

from ..boxes import MakeRequest, when_up
from .conftest import MakeProvider


class TestRemoval:
    def test_delete_leaves_nothing_of_the_box(
        self, provider: AWS, make_request: MakeRequest, account: Account
    ) -> None:
        """The objects of other boxes stay."""
        theirs = make_request()
        tags = dataclasses.replace(theirs.tags, owner="somebody-else")
        decoy = provider.create(dataclasses.replace(theirs, tags=tags))
        for spot in (False, True):
            box = when_up(provider, provider.create(make_request(spot=spot)))
            kinds = {left.kind for left in provider.leftovers(box.id)}
            assert {"machine", "disk", "network interface", "alarm"} <= kinds
            assert ("spot request" in kinds) == spot
            provider.delete(box)
            assert not account.alive(box.id)
            assert not account.volumes(box.id)
            assert not provider.leftovers(box.id)
        assert len(account.alive(decoy.id)) == 1
        provider.delete(decoy)

    def test_leftovers_have_their_prices(
        self, provider: AWS, make_request: MakeRequest, account: Account
    ) -> None:
        """Each is listed with its price an hour."""
        box = when_up(provider, provider.create(make_request()))
        left = {one.kind: one.hourly for one in provider.leftovers(box.id)}
        assert left["machine"] == box.offer.machine_price
        assert left["disk"] == pytest.approx(100 * 0.08 / 730)
        provider.stop(box)
        left = {one.kind: one.hourly for one in provider.leftovers(box.id)}
        assert left["machine"] == 0.0
        provider.delete(box)

    def test_disks_go_with_the_machine(
        self,
        provider: AWS,
        make_provider: MakeProvider,
        make_request: MakeRequest,
        account: Account,
    ) -> None:
        """A client that gives up in the middle of a delete leaves no disk."""
        box = when_up(provider, provider.create(make_request(spot=True)))
        account.faults.denied.add("ec2:DeleteVolume")
        ended = account.delays.ending
        account.delays.ending = 3600.0
        try:
            with pytest.raises(OneboxError, match="longer"):
                make_provider(faster=4000.0).delete(box)
        finally:
            account.delays.ending = ended
        account.lifecycles[account.alive(box.id)[0].id].due = 0.0
        account.wait(box.id, "terminated")
        assert not account.volumes(box.id)
        account.faults.clear()
        provider.delete(box)
        assert not provider.leftovers(box.id)

    def test_a_box_without_an_id_is_never_deleted(
        self, provider: AWS, make_request: MakeRequest
    ) -> None:
        """An empty id would match every object."""
        box = when_up(provider, provider.create(make_request()))
        with pytest.raises(OneboxError):
            provider.delete(dataclasses.replace(box, id=""))
        assert provider.get(box.id) == box
        provider.delete(box)

    @pytest.mark.parametrize(
        "action", ["ec2:TerminateInstances", "ec2:DescribeVolumes"]
    )
    def test_a_refused_delete_is_an_error(
        self, provider: AWS, make_request: MakeRequest, account: Account, action: str
    ) -> None:
        """An object that may not be deleted is not reported as gone."""
        box = when_up(provider, provider.create(make_request()))
        account.faults.denied.add(action)
        with pytest.raises(NotAllowed, match=action):
            provider.delete(box)
        names = [call.action for call in account.calls]
        if "Terminate" in action:
            # The box stays, so its alarm must stay too.
            assert names.index("DeleteAlarms") < len(names) - 1
            assert names[-1] == "PutMetricAlarm"
        with pytest.raises(NotAllowed) if "Volumes" in action else nullcontext():
            assert provider.leftovers(box.id)
        account.faults.clear()
        assert provider.get(box.id) == box
        provider.delete(box)
