"""
IAM's evaluation of a call, as far as onebox's policy uses IAM.

A call is allowed if each of its resources is allowed by a statement whose conditions
hold. A condition on a key that the request lacks does not hold, except ForAllValues.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.aws.account import ACCOUNT, Call

# The kinds of objects that a call creates.
CREATED_KINDS = {
    "RunInstances": ("instance", "volume", "network-interface"),
    "CreateImage": ("image", "snapshot"),
    "CreateSecurityGroup": ("security-group",),
}
_OTHER = {
    "ssm": "ssm",
    "pricing": "pricing",
    "sts": "sts",
    "cloudwatch": "cloudwatch",
    "service-quotas": "servicequotas",
    "iam": "iam",
}


@dataclass(frozen=True)
class Permission:
    """One permission that a call needs."""

    action: str
    resource: str
    context: Mapping[str, Any] = field(default_factory=dict)


def permissions_of(call: Call) -> list[Permission]:
    """Return the permissions that IAM requires for a call."""
    if call.service != "ec2":
        actions = [call.action, *(["TagResource"] if "Tags" in call.parameters else [])]
        service = _OTHER[call.service]
        return [Permission(f"{service}:{action}", _arn(call)) for action in actions]
    action = f"ec2:{call.action}"
    context: dict[str, Any] = {"aws:RequestedRegion": call.region}
    if call.action.startswith(("Describe", "Get")):
        return [Permission(action, "*", context)]
    found = []
    tagged = {
        one["ResourceType"]: {tag["Key"]: tag["Value"] for tag in one["Tags"]}
        for one in call.parameters.get("TagSpecifications", ())
    }
    created_kinds = CREATED_KINDS.get(call.action, ())
    if call.action == "RunInstances" and call.parameters.get("InstanceMarketOptions"):
        created_kinds = (*created_kinds, "spot-instances-request")
    for kind in created_kinds:
        tags = tagged.get(kind, {})
        here: dict[str, Any] = {
            **context,
            **_tags("aws:RequestTag", tags),
            **_details(call, kind),
        }
        if tags:
            here["aws:TagKeys"] = list(tags)
            found.append(
                Permission(
                    "ec2:CreateTags",
                    _ec2(call, kind),
                    {**here, "ec2:CreateAction": call.action},
                )
            )
        found.append(Permission(action, _ec2(call, kind), here))
    for kind, carried in call.resources:
        here = {**context, **_tags("aws:ResourceTag", carried)}
        if call.action == "CreateTags":
            here["aws:TagKeys"] = [tag["Key"] for tag in call.parameters["Tags"]]
        found.append(Permission(action, _ec2(call, kind), here))
    for role in call.passed_roles:
        to_ec2 = {"iam:PassedToService": "ec2.amazonaws.com"}
        found.append(Permission("iam:PassRole", role, to_ec2))
    if call.action == "RunInstances":
        for kind in ("subnet", "security-group"):
            found.append(Permission(action, _ec2(call, kind), context))
    assert found, f"{call.action} needs no permission"
    return found


def allowed(policy: str, permission: Permission) -> bool:
    """Return whether a policy grants a permission."""
    return any(
        statement["Effect"] == "Allow"
        and any(fnmatch.fnmatchcase(permission.action, a) for a in statement["Action"])
        and any(
            fnmatch.fnmatchcase(permission.resource, r) for r in statement["Resource"]
        )
        and _holds(statement.get("Condition", {}), permission.context)
        for statement in json.loads(policy)["Statement"]
    )


def _holds(condition: Mapping[str, Any], context: Mapping[str, Any]) -> bool:
    for operator, parameters in condition.items():
        for key, values in parameters.items():
            allowed = values if isinstance(values, list) else [values]
            present = context.get(key)
            if operator == "ForAllValues:StringLike":
                if not all(
                    any(fnmatch.fnmatchcase(one, like) for like in allowed)
                    for one in present or ()
                ):
                    return False
            elif operator in ("StringEquals", "Bool"):
                if present not in allowed:
                    return False
            else:
                raise AssertionError(f"this evaluation does not support {operator}")
    return True


def _tags(prefix: str, tags: Mapping[str, str]) -> dict[str, str]:
    return {f"{prefix}/{key}": value for key, value in tags.items()}


def _details(call: Call, kind: str) -> dict[str, str]:
    if call.action != "RunInstances":
        return {}
    if kind == "instance":
        tokens = call.parameters["MetadataOptions"]["HttpTokens"]
        return {"ec2:MetadataHttpTokens": tokens}
    if kind == "volume":
        (disk,) = call.parameters["BlockDeviceMappings"]
        return {"ec2:Encrypted": str(disk["Ebs"]["Encrypted"]).lower()}
    return {}


def _ec2(call: Call, kind: str) -> str:
    account = "" if kind in ("image", "snapshot") else ACCOUNT
    return f"arn:aws:ec2:{call.region}:{account}:{kind}/x-1"


def _arn(call: Call) -> str:
    parameters = call.parameters
    if call.service == "ssm":
        (first, *_) = parameters["Names"]
        return f"arn:aws:ssm:{call.region}::parameter{first}"
    names = parameters.get("AlarmNames") or [parameters.get("AlarmName")]
    if call.service == "cloudwatch" and not call.action.startswith("Describe"):
        return f"arn:aws:cloudwatch:{call.region}:{ACCOUNT}:alarm:{names[0]}"
    return "*"
