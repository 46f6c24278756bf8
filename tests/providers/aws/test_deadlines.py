"""The cloud's own deadline: an alarm that ends what outlives its box's."""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Any

import pytest

from onebox.errors import OneboxError
from onebox.providers.aws.provider import AWS
from onebox.providers.base import Request

from .account import Account
from .conftest import MakeRequest, up


def alarm(account: Account) -> dict[str, Any]:
    """Return the alarm that was set last."""
    calls = [call for call in account.calls if call.action == "PutMetricAlarm"]
    return dict(calls[-1].parameters)


def lasting(request: Request, seconds: float) -> Request:
    """Return the request with another deadline."""
    boot_config = dataclasses.replace(
        request.boot_config, deadline=time.time() + seconds
    )
    return dataclasses.replace(request, boot_config=boot_config)


class TestAlarm:
    @pytest.mark.parametrize(("spot", "action"), [(False, "stop"), (True, "terminate")])
    def test_set_at_once(
        self,
        provider: AWS,
        make_request: MakeRequest,
        account: Account,
        spot: bool,
        action: str,
    ) -> None:
        """The call after the launch sets it, to end it an hour after its deadline."""
        box = provider.create(lasting(make_request(spot=spot), 8 * 3600 - 5))
        names = [call.action for call in account.calls]
        assert names.index("PutMetricAlarm") == names.index("RunInstances") + 1
        said = alarm(account)
        (machine,) = account.alive(box.id)
        assert said["AlarmName"] == f"onebox-{box.id}"
        assert said["Dimensions"] == [{"Name": "InstanceId", "Value": machine.id}]
        assert said["AlarmActions"] == [f"arn:aws:automate:us-east-1:ec2:{action}"]
        assert said["MetricName"] == "CPUUtilization"
        assert said["Threshold"] == 0
        assert said["ComparisonOperator"] == "GreaterThanOrEqualToThreshold"
        assert said["TreatMissingData"] == "notBreaching"
        assert said["Period"] == 3600
        assert said["EvaluationPeriods"] == said["DatapointsToAlarm"] == 9
        assert box.notes == ()
        provider.delete(box)
        assert not [one for one in provider.leftovers(box.id) if one.kind == "alarm"]

    def test_each_layer_alone(
        self, provider: AWS, make_request: MakeRequest, account: Account
    ) -> None:
        """What the alarm does leaves the disk: stopped on demand, ended for spot."""
        for spot in (False, True):
            request = lasting(make_request(spot=spot), -10)
            box = up(provider, provider.create(request))
            account.ring(box.id)
            account.wait(box.id, "terminated" if spot else "stopped")
            found = provider.get(box.id)
            assert found is not None
            assert (found.state, found.why, found.disk_only) == (
                "stopped",
                "deadline",
                spot,
            )
            provider.delete(found)

    def test_another_deadline(
        self, provider: AWS, make_request: MakeRequest, account: Account
    ) -> None:
        """A box that starts again has an alarm for its new deadline."""
        box = up(provider, provider.create(make_request()))
        provider.stop(box)
        provider.start(box, time.time() + 5 * 3600)
        assert alarm(account)["EvaluationPeriods"] == math.ceil(5) + 1
        provider.delete(box)

    def test_not_allowed(
        self, provider: AWS, make_request: MakeRequest, account: Account
    ) -> None:
        """Who may not set alarms has a box with a note, which stays with it."""
        account.faults.denied |= {
            "cloudwatch:PutMetricAlarm",
            "cloudwatch:DeleteAlarms",
            "cloudwatch:DescribeAlarms",
        }
        box = provider.create(make_request())
        (note,) = box.notes
        assert "alarm" in note
        assert up(provider, box).notes == box.notes
        assert provider.find(box.tags.owner)[0].notes == box.notes
        provider.delete(box)
        assert not provider.leftovers(box.id)

    def test_too_far(
        self, provider: AWS, make_request: MakeRequest, account: Account
    ) -> None:
        """A deadline beyond a week is more than an alarm can see: a note says so."""
        box = provider.create(lasting(make_request(), 8 * 86400))
        assert box.notes
        assert "PutMetricAlarm" not in account.counted()
        provider.delete(box)

    def test_a_week(
        self, provider: AWS, make_request: MakeRequest, account: Account
    ) -> None:
        """As far as an alarm can see, it is set."""
        box = provider.create(lasting(make_request(), 7 * 86400 - 3600))
        assert alarm(account)["EvaluationPeriods"] == 168
        assert box.notes == ()
        provider.delete(box)

    def test_expired_credentials(
        self, provider: AWS, make_request: MakeRequest, account: Account
    ) -> None:
        """Credentials that end before the teardown: nothing is said to be gone."""
        box = up(provider, provider.create(make_request()))
        account.expired = True
        with pytest.raises(OneboxError, match="expired"):
            provider.delete(box)
        with pytest.raises(OneboxError, match="expired"):
            provider.leftovers(box.id)
        with pytest.raises(OneboxError, match="expired"):
            provider.get(box.id)
        account.expired = False
        provider.delete(box)
