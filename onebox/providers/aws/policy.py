"""
This IAM policy holds the least permissions that onebox needs on AWS.

Reading is allowed everywhere. A call that creates a resource must set onebox's tag on
it. A resource may be changed or deleted only if it has this tag. Alarms are an
exception: their names must begin with "onebox-". A role may be passed to EC2 only if
the settings name an instance profile.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from onebox.providers.aws import reach

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
_CHANGING = (
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
)
_RUN = ("ec2:RunInstances",)
_EC2 = "arn:aws:ec2:*:*:"
# The ARN of an image or of a snapshot may contain no account.
_PUBLIC = ("arn:aws:ec2:*::image/*", "arn:aws:ec2:*::snapshot/*")
_IMAGES = (*_PUBLIC, f"{_EC2}image/*", f"{_EC2}snapshot/*")

_NEW = {"aws:RequestTag/onebox:managed": "1"}
_OWNED = {"StringEquals": {"aws:ResourceTag/onebox:managed": "1"}}
_CREATING = ["RunInstances", "CreateImage", "CreateSecurityGroup"]
_SERVICES = ["spot.amazonaws.com", "events.amazonaws.com"]

# Each row holds the name of a statement, its actions, its resources and its conditions.
_STATEMENTS: tuple[tuple[str, tuple[str, ...], tuple[str, ...], object], ...] = (
    ("Read", _READING, ("*",), None),
    (
        "ReadBaseImages",
        ("ssm:GetParameters",),
        ("arn:aws:ssm:*::parameter/aws/service/*",),
        None,
    ),
    (
        "CreateInstances",
        _RUN,
        (f"{_EC2}instance/*",),
        {"StringEquals": {**_NEW, "ec2:MetadataHttpTokens": "required"}},
    ),
    (
        "CreateVolumes",
        _RUN,
        (f"{_EC2}volume/*",),
        {"StringEquals": _NEW, "Bool": {"ec2:Encrypted": "true"}},
    ),
    (
        "CreateAttachedResources",
        _RUN,
        (f"{_EC2}network-interface/*", f"{_EC2}spot-instances-request/*"),
        {"StringEquals": _NEW},
    ),
    (
        "CreateInstancesFromAndIn",
        _RUN,
        (*_IMAGES, f"{_EC2}subnet/*", f"{_EC2}security-group/*"),
        None,
    ),
    ("SaveInstances", ("ec2:CreateImage",), (f"{_EC2}instance/*",), _OWNED),
    ("CreateImages", ("ec2:CreateImage",), _IMAGES, {"StringEquals": _NEW}),
    (
        "CreateSecurityGroups",
        ("ec2:CreateSecurityGroup",),
        (f"{_EC2}security-group/*",),
        {"StringEquals": _NEW},
    ),
    ("CreateSecurityGroupsIn", ("ec2:CreateSecurityGroup",), (f"{_EC2}vpc/*",), None),
    (
        "TagOnCreate",
        ("ec2:CreateTags",),
        (f"{_EC2}*/*",),
        {"StringEquals": {"ec2:CreateAction": _CREATING}},
    ),
    (
        "TagOwned",
        ("ec2:CreateTags",),
        (f"{_EC2}instance/*", f"{_EC2}volume/*"),
        {**_OWNED, "ForAllValues:StringLike": {"aws:TagKeys": ["onebox:*"]}},
    ),
    ("ChangeAndDeleteOwned", _CHANGING, (f"{_EC2}*/*", *_PUBLIC), _OWNED),
    (
        "Alarms",
        (
            "cloudwatch:PutMetricAlarm",
            "cloudwatch:DeleteAlarms",
            "cloudwatch:TagResource",
        ),
        ("arn:aws:cloudwatch:*:*:alarm:onebox-*",),
        None,
    ),
    (
        "ServiceLinkedRoles",
        ("iam:CreateServiceLinkedRole",),
        ("arn:aws:iam::*:role/aws-service-role/*",),
        {"StringEquals": {"iam:AWSServiceName": _SERVICES}},
    ),
)
# What each value of the setting `reach` needs in addition, as in _STATEMENTS. The
# AWS CLI, which makes these calls, also looks up the instance.
_SESSION = "arn:aws:ssm:*:*:session/${aws:userid}-*"
_REACH: dict[str, tuple[tuple[str, tuple[str, ...], tuple[str, ...], object], ...]] = {
    reach.ENDPOINT: (
        ("ReadEndpoints", ("ec2:DescribeInstanceConnectEndpoints",), ("*",), None),
        (
            "OpenTunnels",
            ("ec2-instance-connect:OpenTunnel",),
            (f"{_EC2}instance-connect-endpoint/*",),
            {"NumericEquals": {"ec2-instance-connect:remotePort": "22"}},
        ),
    ),
    reach.SSM: (
        (
            "StartSessions",
            ("ssm:StartSession",),
            (f"{_EC2}instance/*",),
            {"StringEquals": {"ssm:resourceTag/onebox:managed": "1"}},
        ),
        (
            "StartSessionsOfSSH",
            ("ssm:StartSession",),
            ("arn:aws:ssm:*:*:document/AWS-StartSSHSession",),
            None,
        ),
        (
            "UseOwnSessions",
            (
                "ssm:ResumeSession",
                "ssm:TerminateSession",
                "ssmmessages:OpenDataChannel",
            ),
            (_SESSION,),
            None,
        ),
    ),
}


def document(passed_roles: Sequence[str] = (), way: str = "") -> str:
    """
    Return the policy as the JSON text that IAM expects.

    Args:
        passed_roles: The ARNs of the roles that boxes may get.

        way: The value of the setting `reach`.
    """
    rows = [*_STATEMENTS, *_REACH.get(way, ())]
    if passed_roles:
        to_ec2 = {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}}
        rows.append(("PassRole", ("iam:PassRole",), tuple(passed_roles), to_ec2))
    statements = [
        {
            "Sid": name,
            "Effect": "Allow",
            "Action": actions,
            "Resource": resources,
            **({"Condition": condition} if condition else {}),
        }
        for name, actions, resources, condition in rows
    ]
    return json.dumps({"Version": "2012-10-17", "Statement": statements}, indent=2)
