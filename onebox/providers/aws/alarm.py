"""
AWS itself enforces the deadline with a CloudWatch alarm on the instance.

A running instance reports its CPU use. The alarm counts the hours with a CPU use of 0 %
or more, which are all hours in which the instance ran. After more such hours than there
were until the deadline, AWS stops the instance; a spot instance is terminated. The
alarm works even if the instance hangs, and needs no software on the instance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from onebox.errors import Gone, NotAllowed, OneboxError
from onebox.providers.aws import errors
from onebox.providers.aws.client import EC2
from onebox.providers.kernel.metadata import BoxMetadata

_HOUR = 3600
# With periods of an hour, an alarm of CloudWatch can cover at most a week.
_LONGEST_HOURS = 7 * 24


def put(ec2: EC2, meta: BoxMetadata, instance: str, *, spot: bool) -> bool:
    """
    Set an alarm that fires one to two hours after the deadline.

    Return whether the alarm is set. It is not set if the deadline is too far away for
    an alarm, or if the call fails. Neither raises an error, because the box enforces
    its deadline as well. A caller that creates or starts a box then records in the tags
    that the alarm is missing.
    """
    hours = max(math.ceil((meta.deadline - ec2.clock()) / _HOUR), 1) + 1
    if hours > _LONGEST_HOURS:
        return False
    # The alarm terminates a spot instance, because a spot instance cannot be stopped.
    # The instance's disk is kept.
    action = "terminate" if spot else "stop"
    parameters: dict[str, Any] = {
        "AlarmName": _name(meta.box),
        "AlarmDescription": "onebox: the instance has exceeded its deadline",
        "ActionsEnabled": True,
        "AlarmActions": [
            f"arn:{_partition(ec2.region)}:automate:{ec2.region}:ec2:{action}"
        ],
        "Namespace": "AWS/EC2",
        "MetricName": "CPUUtilization",
        "Dimensions": [{"Name": "InstanceId", "Value": instance}],
        "Statistic": "Maximum",
        "ComparisonOperator": "GreaterThanOrEqualToThreshold",
        "Threshold": 0.0,
        "Period": _HOUR,
        "EvaluationPeriods": hours,
        "DatapointsToAlarm": hours,
        "TreatMissingData": "notBreaching",
    }
    tags = ec2.cloud.user_tag_list()
    if tags and _is_set(ec2, {**parameters, "Tags": tags}):
        return True
    # Tags need a permission of their own (cloudwatch:TagResource). An alarm without
    # tags is better than none.
    return _is_set(ec2, parameters)


def _is_set(ec2: EC2, parameters: Mapping[str, Any]) -> bool:
    """Set an alarm; return whether that succeeded."""
    try:
        ec2.call("put_metric_alarm", service="cloudwatch", **parameters)
    except OneboxError:
        return False
    return True


def remove(ec2: EC2, box: str) -> None:
    """Delete the alarm of a box, if it has one."""
    try:
        ec2.call("delete_alarms", service="cloudwatch", AlarmNames=[_name(box)])
    except Gone:
        return
    except NotAllowed as error:
        # These credentials may lack the permission for alarms. Then onebox could not
        # set an alarm either, so there is none to delete.
        if not errors.denied(error):
            raise


def left(ec2: EC2, box: str) -> list[str]:
    """
    Return the names of the alarms that a box still has.

    The result is empty if the credentials lack the permission to list alarms.
    """
    try:
        answer = ec2.call(
            "describe_alarms", service="cloudwatch", AlarmNames=[_name(box)]
        )
    except NotAllowed as error:
        if not errors.denied(error):
            raise
        return []
    return [str(alarm["AlarmName"]) for alarm in answer.get("MetricAlarms", ())]


def _name(box: str) -> str:
    return f"onebox-{box}"


def _partition(region: str) -> str:
    """Return the partition that a region belongs to; ARNs contain its name."""
    for prefix, partition in (("cn-", "aws-cn"), ("us-gov-", "aws-us-gov")):
        if region.startswith(prefix):
            return partition
    return "aws"
