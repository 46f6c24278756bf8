"""The alarm that ends an instance after its deadline, even if the box does not."""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Any

import pytest

from onebox.errors import OneboxError
from onebox.providers.aws.provider import AWS
from onebox.providers.values import Request
from tests.fakes.aws.account import Account

from ..boxes import MakeRequest, when_up


def alarm(account: Account) -> dict[str, Any]:
    """Return the parameters of the last PutMetricAlarm."""
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
    def test_the_alarm_is_set_right_after_the_launch(
        self,
        provider: AWS,
        make_request: MakeRequest,
        account: Account,
        spot: bool,
        action: str,
    ) -> None:
        """It fires an hour after the deadline."""
        box = provider.create(lasting(make_request(spot=spot), 8 * 3600 - 5))
        names = [call.action for call in account.calls]
        assert names.index("PutMetricAlarm") == names.index("RunInstances") + 1
        parameters = alarm(account)
        (machine,) = account.alive(box.id)
        assert parameters["AlarmName"] == f"onebox-{box.id}"
        assert parameters["Dimensions"] == [{"Name": "InstanceId", "Value": machine.id}]
        assert parameters["AlarmActions"] == [
            f"arn:aws:automate:us-east-1:ec2:{action}"
        ]
        assert parameters["MetricName"] == "CPUUtilization"
        assert parameters["Threshold"] == 0
        assert parameters["ComparisonOperator"] == "GreaterThanOrEqualToThreshold"
        assert parameters["TreatMissingData"] == "notBreaching"
        assert parameters["Period"] == 3600
        assert parameters["EvaluationPeriods"] == parameters["DatapointsToAlarm"] == 9
        assert box.notes == ()
        provider.delete(box)
        assert not [one for one in provider.leftovers(box.id) if one.kind == "alarm"]

    def test_the_alarm_alone_keeps_the_disk(
        self, provider: AWS, make_request: MakeRequest, account: Account
    ) -> None:
        """It stops an on-demand instance, and terminates a spot instance."""
        for spot in (False, True):
            request = lasting(make_request(spot=spot), -10)
            box = when_up(provider, provider.create(request))
            account.fire_alarm(box.id)
            account.wait(box.id, "terminated" if spot else "stopped")
            found = provider.get(box.id)
            assert found is not None
            assert (found.state, found.why, found.disk_only) == (
                "stopped",
                "deadline",
                spot,
            )
            provider.delete(found)

    def test_a_start_sets_an_alarm_for_the_new_deadline(
        self, provider: AWS, make_request: MakeRequest, account: Account
    ) -> None:
        """The alarm of the former deadline is replaced."""
        box = when_up(provider, provider.create(make_request()))
        provider.stop(box)
        provider.start(box, time.time() + 5 * 3600)
        assert alarm(account)["EvaluationPeriods"] == math.ceil(5) + 1
        provider.delete(box)

    def test_a_box_without_an_alarm_has_a_note(
        self, provider: AWS, make_request: MakeRequest, account: Account
    ) -> None:
        """The credentials may not set alarms; the note stays with the box."""
        account.faults.denied |= {
            "cloudwatch:PutMetricAlarm",
            "cloudwatch:DeleteAlarms",
            "cloudwatch:DescribeAlarms",
        }
        box = provider.create(make_request())
        (note,) = box.notes
        assert "alarm" in note
        assert when_up(provider, box).notes == box.notes
        assert provider.find(box.tags.owner)[0].notes == box.notes
        provider.delete(box)
        assert not provider.leftovers(box.id)

    def test_a_deadline_beyond_the_reach_of_an_alarm_has_a_note(
        self, provider: AWS, make_request: MakeRequest, account: Account
    ) -> None:
        """CloudWatch evaluates a week at most."""
        box = provider.create(lasting(make_request(), 8 * 86400))
        assert box.notes
        assert "PutMetricAlarm" not in account.counted()
        provider.delete(box)

    def test_the_longest_deadline_of_an_alarm_is_set(
        self, provider: AWS, make_request: MakeRequest, account: Account
    ) -> None:
        """A deadline just within the week has an alarm."""
        box = provider.create(lasting(make_request(), 7 * 86400 - 3600))
        assert alarm(account)["EvaluationPeriods"] == 168
        assert box.notes == ()
        provider.delete(box)

    def test_a_teardown_with_expired_credentials_reports_nothing_as_gone(
        self, provider: AWS, make_request: MakeRequest, account: Account
    ) -> None:
        """It fails, and names the credentials."""
        box = when_up(provider, provider.create(make_request()))
        account.expired = True
        with pytest.raises(OneboxError, match="expired"):
            provider.delete(box)
        with pytest.raises(OneboxError, match="expired"):
            provider.leftovers(box.id)
        with pytest.raises(OneboxError, match="expired"):
            provider.get(box.id)
        account.expired = False
        provider.delete(box)
