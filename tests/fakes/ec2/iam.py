"""
IAM's own judgement of a call, as far as our policy needs it.

Every resource of a call has to be allowed by a statement whose conditions hold; a
condition on a key that the request does not have does not hold (but for
ForAllValues).
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.ec2.account import ACCOUNT, Call

# What is made by a call that carries these tags; with what it is made from.
_MADE = {
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
}


@dataclass(frozen=True)
class Question:
    """One permission that a call needs."""

    action: str
    resource: str
    context: Mapping[str, Any] = field(default_factory=dict)


def questions(call: Call) -> list[Question]:
    """Return all that has to be allowed for a call, as IAM takes it apart."""
    if call.service != "ec2":
        return [Question(f"{_OTHER[call.service]}:{call.action}", _arn(call))]
    action = f"ec2:{call.action}"
    context: dict[str, Any] = {"aws:RequestedRegion": call.region}
    if call.action.startswith(("Describe", "Get")):
        return [Question(action, "*", context)]
    found = []
    tagged = {
        one["ResourceType"]: {tag["Key"]: tag["Value"] for tag in one["Tags"]}
        for one in call.parameters.get("TagSpecifications", ())
    }
    made = _MADE.get(call.action, ())
    if call.action == "RunInstances" and call.parameters.get("InstanceMarketOptions"):
        made = (*made, "spot-instances-request")
    for kind in made:
        tags = tagged.get(kind, {})
        here: dict[str, Any] = {
            **context,
            **_tags("aws:RequestTag", tags),
            **_details(call, kind),
        }
        if tags:
            here["aws:TagKeys"] = list(tags)
            found.append(
                Question(
                    "ec2:CreateTags",
                    _ec2(call, kind),
                    {**here, "ec2:CreateAction": call.action},
                )
            )
        found.append(Question(action, _ec2(call, kind), here))
    for kind, carried in call.resources:
        here = {**context, **_tags("aws:ResourceTag", carried)}
        if call.action == "CreateTags":
            here["aws:TagKeys"] = [tag["Key"] for tag in call.parameters["Tags"]]
        found.append(Question(action, _ec2(call, kind), here))
    if call.action == "RunInstances":
        for kind in ("subnet", "security-group"):
            found.append(Question(action, _ec2(call, kind), context))
    assert found, f"{call.action} is about nothing"
    return found


def allowed(policy: str, question: Question) -> bool:
    """Tell whether a policy allows what a call needs."""
    return any(
        statement["Effect"] == "Allow"
        and any(fnmatch.fnmatchcase(question.action, a) for a in statement["Action"])
        and any(
            fnmatch.fnmatchcase(question.resource, r) for r in statement["Resource"]
        )
        and _holds(statement.get("Condition", {}), question.context)
        for statement in json.loads(policy)["Statement"]
    )


def _holds(condition: Mapping[str, Any], context: Mapping[str, Any]) -> bool:
    for operator, wanted in condition.items():
        for key, values in wanted.items():
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
                raise AssertionError(f"not known here: {operator}")
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
    wanted = call.parameters
    if call.service == "ssm":
        (first, *_) = wanted["Names"]
        return f"arn:aws:ssm:{call.region}::parameter{first}"
    names = wanted.get("AlarmNames") or [wanted.get("AlarmName")]
    if call.service == "cloudwatch" and not call.action.startswith("Describe"):
        return f"arn:aws:cloudwatch:{call.region}:{ACCOUNT}:alarm:{names[0]}"
    return "*"
