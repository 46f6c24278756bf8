"""What doctor looks at before a box is asked for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from onebox.errors import Gone, NotAllowed, OneboxError, ProviderError
from onebox.providers.aws import creation, errors
from onebox.providers.aws.base_images import DEFAULT, DEFAULT_ARCH, Bases
from onebox.providers.aws.client import Cloud
from onebox.providers.aws.network import Network
from onebox.providers.base import Check, unknown

# vCPUs of the families that boxes are of, by what Service Quotas calls it.
_QUOTAS = {"on demand": "L-1216C47A", "spot": "L-34B43A08"}
_QUOTA_PAGE = "https://console.aws.amazon.com/servicequotas/home/services/ec2/quotas"
# Fewer than the built-in size `large` has.
_FEW_CPUS = 64
# A machine that is nobody's, for asking whether it could be ended.
_NOBODYS = "i-0123456789abcdef0"


def look(cloud: Cloud, network: Network, bases: Bases) -> list[Check]:
    """Look at all of it; what cannot be looked at is said, too, and never raised."""
    who = _said("credentials", lambda: _credentials(cloud))
    region = _said("region", lambda: _region(cloud))
    if who.ok is False or region.ok is False:
        return [who, region]
    questions: list[Callable[[], Check]] = [
        lambda: _asked("credentials last", lambda: _lasting(cloud)),
        lambda: _asked("network", lambda: _network(cloud, network)),
        lambda: _asked("may create", lambda: _creating(cloud, network, bases)),
        lambda: _asked("may remove", lambda: _removing(cloud)),
        lambda: _asked("quota on demand", lambda: _quota(cloud, "on demand")),
        lambda: _asked("quota spot", lambda: _quota(cloud, "spot")),
        lambda: _asked("prices", lambda: _prices(cloud)),
        lambda: _asked("alarms", lambda: _alarms(cloud)),
    ]
    return [who, region, *cloud.together(questions)]


def expiry(cloud: Cloud) -> float | None:
    """Return when the credentials end, None if they do not, as far as is known."""
    found = cloud.session.get_credentials()
    until: Any = getattr(found, "_expiry_time", None)
    return float(until.timestamp()) if until is not None else None


def _said(name: str, question: Callable[[], Check]) -> Check:
    try:
        return question()
    except OneboxError as error:
        return Check(name, False, error.message, error.next or "inv doctor once more")


def _asked(name: str, question: Callable[[], Check]) -> Check:
    try:
        return question()
    except OneboxError as error:
        if type(error) is ProviderError:
            # A refusal that has no class of its own is an answer as well.
            return Check(name, False, error.message, error.next or "inv doctor")
        return unknown(name, error)


def _credentials(cloud: Cloud) -> Check:
    # It answers in every region, also where none has been chosen yet.
    region = cloud.session.get_config_variable("region") or "us-east-1"
    answer = cloud.call("sts", "get_caller_identity", region)
    found = cloud.session.get_credentials()
    return Check(
        "credentials",
        True,
        f"{answer.get('Arn')}, account {answer.get('Account')}, from {found.method}",
    )


def _lasting(cloud: Cloud) -> Check:
    until = expiry(cloud)
    if until is None:
        return Check("credentials last", True, "no end is known of them")
    left = (until - cloud.clock()) / 3600
    at = time.strftime("%Y-%m-%d %H:%M", time.localtime(until))
    return Check(
        "credentials last",
        None,
        f"until {at}, {left:.1f} hours from now; renewed if their source can do that",
        "a box switches itself off, whatever becomes of them",
    )


def _region(cloud: Cloud) -> Check:
    region = cloud.region
    found = cloud.pages("describe_availability_zones", "AvailabilityZones", region)
    zones = sorted(
        str(one["ZoneName"]) for one in found if one.get("State") == "available"
    )
    return Check("region", True, f"{region}: {', '.join(zones)}")


def _network(cloud: Cloud, network: Network) -> Check:
    sockets = network.sockets(cloud.region)
    zones = ", ".join(one.zone for one in sockets)
    return Check("network", True, f"{sockets[0].vpc}, with subnets in {zones}")


def _creating(cloud: Cloud, network: Network, bases: Bases) -> Check:
    region = cloud.region
    base = bases.find(region, DEFAULT, DEFAULT_ARCH)
    socket = network.sockets(region)[0]
    plan = creation.Plan(
        token="onebox-doctor",  # noqa: S106 - for idempotency, no secret
        type="m7i.large",
        base=base,
        socket=socket,
        groups=(),
        user_data=b"",
        disk=base.size,
        disk_type="gp3",
        spot=False,
    )
    creation.allowed(cloud, region, plan, creation.asking(region))
    return Check("may create", True, f"machines in {region}, says a dry run")


def _removing(cloud: Cloud) -> Check:
    try:
        cloud.call(
            "ec2",
            "terminate_instances",
            cloud.region,
            InstanceIds=[_NOBODYS],
            DryRun=True,
        )
    except NotAllowed:
        return Check("may remove", True, "machines of onebox alone, says a dry run")
    except (Gone, ProviderError) as error:
        if errors.code(error) not in (
            "DryRunOperation",
            "InvalidInstanceID.NotFound",
        ):
            raise
    return Check(
        "may remove",
        None,
        "any machine of this account: onebox asks whose it is, AWS would not",
        "inv doctor --policy prints permissions that end at onebox's own machines",
    )


def _quota(cloud: Cloud, what: str) -> Check:
    name, quota = f"quota {what}", _QUOTAS[what]
    try:
        answer = cloud.call(
            "service-quotas",
            "get_service_quota",
            cloud.region,
            ServiceCode="ec2",
            QuotaCode=quota,
        )
    except ProviderError as error:
        return Check(name, None, f"not known: {error.message}", error.next)
    cpus = float(answer.get("Quota", {}).get("Value") or 0)
    said = f"{cpus:g} vCPU at a time, {what}"
    if cpus >= _FEW_CPUS:
        return Check(name, True, said)
    # Nobody needs spot capacity.
    ok = False if cpus < 1 and what == "on demand" else None
    return Check(name, ok, said, f"ask for more: {_QUOTA_PAGE}/{quota}")


def _prices(cloud: Cloud) -> Check:
    try:
        cloud.call(
            "pricing",
            "get_products",
            "us-east-1",
            ServiceCode="AmazonEC2",
            Filters=[
                {"Type": "TERM_MATCH", "Field": "instanceType", "Value": "m7i.large"}
            ],
            MaxResults=1,
        )
    except OneboxError as error:
        return Check("prices", None, f"not known: {error.message}", error.next)
    return Check("prices", True, "the price list answers")


def _alarms(cloud: Cloud) -> Check:
    try:
        cloud.call("cloudwatch", "describe_alarms", cloud.region, MaxRecords=1)
    except OneboxError as error:
        return Check(
            "alarms",
            None,
            f"only the box itself keeps its deadline: {error.message}",
            error.next,
        )
    return Check("alarms", True, "the cloud can keep a box's deadline too")
