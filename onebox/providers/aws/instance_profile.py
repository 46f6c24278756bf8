"""
The IAM instance profile of a box, which gives programs on it the rights of a role.

A new profile is unknown to EC2 for some seconds (IAM user guide, "Changes that I make
are not always immediately visible").
"""

from __future__ import annotations

import contextlib
import re

from onebox.errors import NotAllowed, OneboxError, ProviderError, UsageError
from onebox.providers.aws import errors
from onebox.providers.aws.client import Answer, Cloud
from onebox.providers.aws.settings import AWSSettings
from onebox.providers.values import Request

# EC2 is asked for this long whether it knows a profile by now.
LAG_SECONDS = 15.0
# The beginning of AWS's messages about a profile that does not exist, and about one
# whose role does not exist.
_UNKNOWN = r"Invalid IAM Instance Profile"
_EMPTY = r"has no associated IAM Roles"
_POLICY = "inv doctor --policy prints the permissions that onebox needs"


def for_request(settings: AWSSettings, request: Request) -> str:
    """
    Return the profile that the settings name for a new box, "" for a builder.

    The set-up script of an image needs no rights in the account.
    """
    return settings.instance_profile if request.tags.kind == "box" else ""


def of_instance(instance: Answer) -> str:
    """Return the name of an instance's profile, "" if it has none."""
    return _name(str((instance.get("IamInstanceProfile") or {}).get("Arn", "")))


def parameters(profile: str) -> dict[str, dict[str, str]]:
    """Return the parameter of RunInstances that attaches a profile, {} for none."""
    if not profile:
        return {}
    key = "Arn" if profile.startswith("arn:") else "Name"
    return {"IamInstanceProfile": {key: profile}}


def is_unknown(error: OneboxError) -> bool:
    """Return whether EC2 has refused a profile that it may know in some seconds."""
    return errors.code(error) == "InvalidParameterValue" and bool(
        re.search(f"{_UNKNOWN}|{_EMPTY}", error.message)
    )


def explained(error: ProviderError, profile: str) -> OneboxError:
    """Return the error to raise for *error*, which may be about the profile."""
    setting = f"[aws] instance_profile = {profile}"
    if not profile:
        return error
    if is_unknown(error) and re.search(_EMPTY, error.message):
        return UsageError(
            f"{setting}: this instance profile has no role",
            next="aws iam add-role-to-instance-profile --instance-profile-name "
            f"{_name(profile)} --role-name …",
        )
    if is_unknown(error):
        return UsageError(
            f"{setting}: AWS knows no such instance profile in this account (a role "
            "alone is none)",
            next="aws iam list-instance-profiles; correct the setting, then inv doctor",
        )
    if not errors.denied(error):
        return error
    if "iam:PassRole" in error.message:
        return NotAllowed(f"{setting}: {error.message}", next=_POLICY)
    if "lack the permission for" in error.message:
        # The message says which permission is missing only in an encoded form.
        return NotAllowed(
            f"{setting}: these credentials may not launch an instance with it "
            f"({errors.code(error)}); AWS names no permission, so it is probably "
            "iam:PassRole for the role of the profile",
            next=f"inv doctor checks it; {_POLICY}",
        )
    return error


def roles(cloud: Cloud, profile: str) -> tuple[str, ...]:
    """
    Return the ARNs of a profile's roles, () if they are unknown.

    The permission iam:GetInstanceProfile is not required for anything else.
    """
    with contextlib.suppress(OneboxError):
        answer = cloud.once(
            "iam",
            "get_instance_profile",
            cloud.region,
            InstanceProfileName=_name(profile),
        )
        found = answer.get("InstanceProfile", {}).get("Roles", ())
        return tuple(str(role["Arn"]) for role in found)
    return ()


def passed_roles(cloud: Cloud, profile: str) -> tuple[str, ...]:
    """
    Return the roles that onebox must be allowed to pass to EC2, as ARNs for a policy.

    If the role of the profile cannot be read, these are all roles of its account, or of
    the account that has the policy.
    """
    if not profile:
        return ()
    account = re.match(r"arn:[a-z-]+:iam::[0-9]+:", profile)
    prefix = account[0] if account else "arn:aws:iam::*:"
    return roles(cloud, profile) or (f"{prefix}role/*",)


def _name(profile: str) -> str:
    """Return the name of the profile that a name or an ARN stands for."""
    return profile.rpartition("/")[2]
