"""The instance profiles of the account: moto's, with EC2's own checks of a launch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from moto.iam.models import iam_backends

from tests.fakes.aws.schema import Refusal

if TYPE_CHECKING:
    from tests.fakes.aws.faults import Faults

# The same account as in `account`, which imports this module.
ACCOUNT = "123456789012"
_USER = f"arn:aws:iam::{ACCOUNT}:user/tester"


def add(name: str, *roles: str, path: str = "/") -> str:
    """Create an instance profile with new roles, unless it exists; return its ARN."""
    backend = _backend()
    for profile in backend.instance_profiles.values():
        if profile.name == name:
            return str(profile.arn)
    for role in roles:
        backend.create_role(role, "{}", "/", None, "", [], "3600")
    made = backend.create_instance_profile(name=name, path=path, role_names=[])
    for role in roles:
        backend.add_role_to_instance_profile(name, role)
    return str(made.arn)


def check(faults: Faults, parameters: dict[str, Any]) -> None:
    """Refuse a profile that a launch cannot have, as EC2 does."""
    # Packer sends an empty name for none.
    given = parameters.get("IamInstanceProfile") or {}
    wanted = {key: text for key, text in given.items() if text}
    if not wanted:
        return
    if len(wanted) > 1:
        raise Refusal(
            "InvalidParameterCombination",
            "The parameter 'iamInstanceProfile.name' may not be used in combination "
            "with 'iamInstanceProfile.arn'",
        )
    ((key, text),) = wanted.items()
    kind = {"Name": "name", "Arn": "ARN"}[key]
    profile = _find(wanted)
    if profile is None or faults.new_profiles > 0:
        faults.new_profiles = max(faults.new_profiles - 1, 0)
        raise Refusal(
            "InvalidParameterValue",
            f"Value ({text}) for parameter iamInstanceProfile.{key.lower()} is "
            f"invalid. Invalid IAM Instance Profile {kind}",
        )
    if not profile.roles:
        raise Refusal(
            "InvalidParameterValue",
            f'IAM Instance Profile "{profile.arn}" has no associated IAM Roles',
        )
    if "iam:PassRole" in faults.denied:
        raise faults.unauthorized(_USER, "iam:PassRole", profile.roles[0].arn)


def passed_roles(parameters: dict[str, Any]) -> tuple[str, ...]:
    """Return the roles that a launch passes to EC2."""
    profile = _find(parameters.get("IamInstanceProfile") or {})
    return tuple(str(role.arn) for role in profile.roles) if profile else ()


def _find(wanted: dict[str, str]) -> Any:
    for profile in _backend().instance_profiles.values():
        if profile.name == wanted.get("Name") or profile.arn == wanted.get("Arn"):
            return profile
    return None


def _backend() -> Any:
    return iam_backends[ACCOUNT]["aws"]
