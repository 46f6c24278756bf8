"""
The least permissions that onebox needs on AWS, as an IAM policy.

Reading is allowed everywhere. Creating requires onebox's tag in the request, and
changing or deleting requires it on the resource.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

_READING = (
    "ec2:DescribeAvailabilityZones",
    "ec2:DescribeImages",
    "ec2:DescribeInstanceTypeOfferings",
    "ec2:DescribeInstanceTypes",
    "ec2:DescribeInstances",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeRegions",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSnapshots",
    "ec2:DescribeSpotInstanceRequests",
    "ec2:DescribeSpotPriceHistory",
    "ec2:DescribeSubnets",
    "ec2:DescribeVolumes",
    "ec2:DescribeVpcs",
    "ec2:GetConsoleOutput",
    "cloudwatch:DescribeAlarms",
    "pricing:GetProducts",
    "servicequotas:GetServiceQuota",
    "sts:GetCallerIdentity",
)
_CREATING = ("RunInstances", "CreateImage", "CreateSecurityGroup")
_TAGGED_RESOURCE = {"StringEquals": {"aws:ResourceTag/onebox:managed": "1"}}
_TAGGED_REQUEST = {"StringEquals": {"aws:RequestTag/onebox:managed": "1"}}


def document() -> str:
    """Return the policy as IAM expects it."""
    statements = [
        _allow("Read", _READING, ["*"]),
        _allow(
            "ReadBaseImages",
            ["ssm:GetParameters"],
            ["arn:aws:ssm:*::parameter/aws/service/*"],
        ),
        _allow(
            "CreateInstances",
            ["ec2:RunInstances"],
            [_ec2("instance")],
            {
                "StringEquals": {
                    **_TAGGED_REQUEST["StringEquals"],
                    "ec2:MetadataHttpTokens": "required",
                }
            },
        ),
        _allow(
            "CreateVolumes",
            ["ec2:RunInstances"],
            [_ec2("volume")],
            {**_TAGGED_REQUEST, "Bool": {"ec2:Encrypted": "true"}},
        ),
        _allow(
            "CreateAttachedResources",
            ["ec2:RunInstances"],
            [_ec2("network-interface"), _ec2("spot-instances-request")],
            _TAGGED_REQUEST,
        ),
        _allow(
            "CreateInstancesFromAndIn",
            ["ec2:RunInstances"],
            [
                "arn:aws:ec2:*::image/*",
                "arn:aws:ec2:*::snapshot/*",
                _ec2("image"),
                _ec2("snapshot"),
                _ec2("subnet"),
                _ec2("security-group"),
            ],
        ),
        _allow(
            "SaveInstances", ["ec2:CreateImage"], [_ec2("instance")], _TAGGED_RESOURCE
        ),
        _allow(
            "CreateImages",
            ["ec2:CreateImage"],
            [_ec2("image", ""), _ec2("image"), _ec2("snapshot", ""), _ec2("snapshot")],
            _TAGGED_REQUEST,
        ),
        _allow(
            "CreateSecurityGroups",
            ["ec2:CreateSecurityGroup"],
            [_ec2("security-group")],
            _TAGGED_REQUEST,
        ),
        _allow("CreateSecurityGroupsIn", ["ec2:CreateSecurityGroup"], [_ec2("vpc")]),
        _allow(
            "TagOnCreate",
            ["ec2:CreateTags"],
            ["arn:aws:ec2:*:*:*/*"],
            {"StringEquals": {"ec2:CreateAction": list(_CREATING)}},
        ),
        _allow(
            "TagOwned",
            ["ec2:CreateTags"],
            [_ec2("instance"), _ec2("volume")],
            {
                **_TAGGED_RESOURCE,
                "ForAllValues:StringLike": {"aws:TagKeys": ["onebox:*"]},
            },
        ),
        _allow(
            "ChangeAndDeleteOwned",
            [
                "ec2:AttachVolume",
                "ec2:AuthorizeSecurityGroupIngress",
                "ec2:DeleteSecurityGroup",
                "ec2:DeleteSnapshot",
                "ec2:DeleteVolume",
                "ec2:DeregisterImage",
                "ec2:DetachVolume",
                "ec2:ModifyInstanceAttribute",
                "ec2:RevokeSecurityGroupIngress",
                "ec2:StartInstances",
                "ec2:StopInstances",
                "ec2:TerminateInstances",
            ],
            [
                "arn:aws:ec2:*:*:*/*",
                "arn:aws:ec2:*::image/*",
                "arn:aws:ec2:*::snapshot/*",
            ],
            _TAGGED_RESOURCE,
        ),
        _allow(
            "Alarms",
            ["cloudwatch:PutMetricAlarm", "cloudwatch:DeleteAlarms"],
            ["arn:aws:cloudwatch:*:*:alarm:onebox-*"],
        ),
        _allow(
            "ServiceLinkedRoles",
            ["iam:CreateServiceLinkedRole"],
            ["arn:aws:iam::*:role/aws-service-role/*"],
            {
                "StringEquals": {
                    "iam:AWSServiceName": [
                        "spot.amazonaws.com",
                        "events.amazonaws.com",
                    ]
                }
            },
        ),
    ]
    return json.dumps({"Version": "2012-10-17", "Statement": statements}, indent=2)


def _allow(
    name: str,
    actions: Sequence[str],
    resources: Sequence[str],
    condition: object = None,
) -> dict[str, object]:
    statement: dict[str, object] = {
        "Sid": name,
        "Effect": "Allow",
        "Action": list(actions),
        "Resource": list(resources),
    }
    if condition is not None:
        statement["Condition"] = condition
    return statement


def _ec2(kind: str, account: str = "*") -> str:
    return f"arn:aws:ec2:*:{account}:{kind}/*"
