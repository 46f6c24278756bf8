"""
The cloud's own deadline: an alarm that ends a machine which outlives its box's.

It rings when the machine has said for more hours than it was given that its
processor is in use to some degree, 0 % included: that is, that it still runs. It
works when the machine hangs, and needs nothing of ours on it.
"""

from __future__ import annotations

import math

from onebox.errors import Gone, NotAllowed
from onebox.providers.aws import errors
from onebox.providers.aws.client import Cloud

_HOUR = 3600
# CloudWatch looks back a week at most, an hour at a time.
_MOST_HOURS = 7 * 24


def name(box: str) -> str:
    """Return the name of a box's alarm."""
    return f"onebox-{box}"


def reaches(seconds: float) -> bool:
    """Tell whether an alarm can look as far ahead as this."""
    return _hours(seconds) <= _MOST_HOURS


def put(
    cloud: Cloud, region: str, box: str, instance: str, seconds: float, *, spot: bool
) -> None:
    """Have a machine ended if it still runs an hour after so many seconds."""
    # A spot machine cannot be stopped; its disk outlives it.
    action = "terminate" if spot else "stop"
    cloud.call(
        "cloudwatch",
        "put_metric_alarm",
        region,
        AlarmName=name(box),
        AlarmDescription="onebox: the machine has outlived its deadline",
        ActionsEnabled=True,
        AlarmActions=[f"arn:{partition(region)}:automate:{region}:ec2:{action}"],
        Namespace="AWS/EC2",
        MetricName="CPUUtilization",
        Dimensions=[{"Name": "InstanceId", "Value": instance}],
        Statistic="Maximum",
        ComparisonOperator="GreaterThanOrEqualToThreshold",
        Threshold=0.0,
        Period=_HOUR,
        EvaluationPeriods=_hours(seconds),
        DatapointsToAlarm=_hours(seconds),
        TreatMissingData="notBreaching",
    )


def remove(cloud: Cloud, region: str, box: str) -> None:
    """Remove a box's alarm; there need be none."""
    try:
        cloud.call("cloudwatch", "delete_alarms", region, AlarmNames=[name(box)])
    except Gone:
        return
    except NotAllowed as error:
        # Whoever may not touch alarms has not made one either.
        if not errors.denied(error):
            raise


def left(cloud: Cloud, region: str, box: str) -> list[str]:
    """Return the alarms that a box still has."""
    try:
        answer = cloud.call(
            "cloudwatch", "describe_alarms", region, AlarmNames=[name(box)]
        )
    except NotAllowed as error:
        if not errors.denied(error):
            raise
        return []
    return [str(one["AlarmName"]) for one in answer.get("MetricAlarms", ())]


def partition(region: str) -> str:
    """Return the part of AWS that a region is in, as its ARNs call it."""
    for prefix, found in (("cn-", "aws-cn"), ("us-gov-", "aws-us-gov")):
        if region.startswith(prefix):
            return found
    return "aws"


def _hours(seconds: float) -> int:
    return max(math.ceil(seconds / _HOUR), 1) + 1
