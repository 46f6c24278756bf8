"""Make the checks of `inv doctor` for AWS."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from onebox.errors import NotAllowed, OneboxError, ProviderError
from onebox.providers.aws import creation, errors, instance_profile, reach
from onebox.providers.aws.base_images import DEFAULT, Bases
from onebox.providers.aws.client import Cloud
from onebox.providers.aws.network import Network
from onebox.providers.kernel import doctor, ranking
from onebox.providers.kernel.metadata import BoxMetadata
from onebox.providers.values import Check, Offer, Tags

# Service Quotas' codes for the vCPU limits of the instance families from which onebox
# itself chooses types.
_QUOTAS = {"on demand": "L-1216C47A", "spot": "L-34B43A08"}
_QUOTA_PAGE = "https://console.aws.amazon.com/servicequotas/home/services/ec2/quotas"
# The number of vCPUs of the built-in size `large`. A quota below it is reported.
_FEW_CPUS = 64
_TYPE = "m7i.large"
# No instance has this id. It is used for a dry run of a termination.
_NO_INSTANCE = "i-0123456789abcdef0"


def checks(cloud: Cloud, network: Network, bases: Bases) -> list[Check]:
    """
    Run all checks, and return one line for each.

    The second group runs only if the first one succeeds. Its checks run in parallel.
    """
    return doctor.run(
        [
            ("credentials", partial(_credentials, cloud)),
            ("region", partial(_region, cloud)),
        ],
        [
            ("credentials last", partial(_lasting, cloud)),
            ("network", partial(_network, cloud, network)),
            ("ssh", partial(_ssh, cloud, network)),
            *((one.program, one.check) for one in reach.TOOLS[network.settings.reach]),
            ("may create", partial(_creating, cloud, network, bases)),
            *_identity_steps(cloud, network, bases),
            ("may remove", partial(_removing, cloud)),
            ("quota on demand", partial(_quota, cloud, "on demand")),
            ("quota spot", partial(_quota, cloud, "spot")),
            ("prices", partial(_prices, cloud)),
            ("alarms", partial(_alarms, cloud)),
        ],
        each=cloud.each,
    )


def expiry(cloud: Cloud) -> float | None:
    """Return when the credentials expire (epoch seconds), None if that is unknown."""
    found = cloud.session.get_credentials()
    until: Any = getattr(found, "_expiry_time", None)
    return float(until.timestamp()) if until is not None else None


def _credentials(cloud: Cloud) -> Check:
    # STS answers in every region. So if no region is set, any region can be used.
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
    line = doctor.credentials_line(
        "credentials last",
        "renewed if their source can do that" if until else "long-term keys",
        until,
        cloud.clock(),
        "a box powers itself off, whether the credentials last or not",
    )
    return line if until is None else replace(line, ok=None)


def _region(cloud: Cloud) -> Check:
    ec2 = cloud.ec2()
    found = ec2.pages("describe_availability_zones", "AvailabilityZones")
    zones = sorted(
        str(one["ZoneName"]) for one in found if one.get("State") == "available"
    )
    return Check("region", True, f"{ec2.region}: {', '.join(zones)}")


def _network(cloud: Cloud, network: Network) -> Check:
    subnets = network.subnets(cloud.ec2())
    zones = ", ".join(one.zone for one in subnets)
    return Check("network", True, f"{subnets[0].vpc}, with subnets in {zones}")


def _ssh(cloud: Cloud, network: Network) -> Check:
    way, group = network.settings.reach, network.group
    if way == reach.SSM:
        # Whether the agent has registered is known only once a box runs.
        needs = "AmazonSSMManagedInstanceCore, or SSM's Default Host Management"
        if network.settings.instance_profile:
            return Check("ssh", True, f"by SSM; the role needs {needs}")
        return Check(
            "ssh",
            None,
            f"by SSM; the SSM agent of a box needs a role with {needs}",
            "set [aws] instance_profile, or turn Default Host Management on",
        )
    if way == reach.ENDPOINT:
        ec2 = cloud.ec2()
        subnet = network.subnets(ec2)[0]
        groups = ", ".join(reach.endpoint_groups(ec2, subnet.vpc, subnet.id))
        rule = f"which the rules of {group} must admit" if group else "and from it only"
        return Check("ssh", True, f"by the endpoint in {groups}, {rule}")
    if group:
        return Check("ssh", True, f"as the rules of {group} allow")
    return doctor.ssh_line(network.access)


def _creating(cloud: Cloud, network: Network, bases: Bases) -> Check:
    _try_to_launch(cloud, network, bases)
    return Check("may create", True, f"instances in {cloud.region}, by a dry run")


def _identity_steps(cloud: Cloud, network: Network, bases: Bases) -> list[doctor.Step]:
    """Return the check of the instance profile, none if the settings name none."""
    if not network.settings.instance_profile:
        return []
    return [("identity", partial(_identity, cloud, network, bases))]


def _identity(cloud: Cloud, network: Network, bases: Bases) -> Check:
    profile, name = network.settings.instance_profile, network.settings.identity
    _try_to_launch(cloud, network, bases, profile)
    detail = f"{name} can be attached, by a dry run"
    roles = instance_profile.roles(cloud, profile)
    if roles:
        detail += f"; jobs act as {', '.join(roles)}"
    return Check("identity", True, detail)


def _try_to_launch(
    cloud: Cloud, network: Network, bases: Bases, profile: str = ""
) -> None:
    """Make a dry run of a launch; raise the error if AWS refuses it."""
    ec2 = cloud.ec2()
    base = bases.find(ec2, DEFAULT, ranking.DEFAULT_ARCH)
    meta = BoxMetadata(
        box="ob-doctor",
        tags=Tags("doctor", "doctor", "doctor", 0.0, "0"),
        offer=Offer("doctor", _TYPE, 2, 8 << 30, None, None, place=ec2.region),
        image="",
        host_key="",
        bootstrap_key=False,
        deadline=0.0,
    )
    plan = creation.Plan(
        token="onebox-doctor",  # noqa: S106 - an idempotency token, not a secret
        type=_TYPE,
        base=base,
        subnet=network.subnets(ec2)[0],
        user_data=b"",
        disk=base.size,
        disk_type="gp3",
        spot=False,
        profile=profile,
    )
    try:
        ec2.call("run_instances", **plan.parameters(meta), DryRun=True)
    except ProviderError as error:
        if errors.code(error) != "DryRunOperation":
            creation.raise_for_settings(error, plan)


def _removing(cloud: Cloud) -> Check:
    try:
        cloud.ec2().call("terminate_instances", InstanceIds=[_NO_INSTANCE], DryRun=True)
    except NotAllowed:
        return Check("may remove", True, "only onebox's own instances, by a dry run")
    except ProviderError as error:
        if errors.code(error) not in ("DryRunOperation", "InvalidInstanceID.NotFound"):
            raise
    return Check(
        "may remove",
        None,
        "any instance of this account: onebox checks the owner, AWS does not",
        "inv doctor --policy prints permissions for onebox's own instances only",
    )


def _quota(cloud: Cloud, market: str) -> Check:
    name, quota = f"quota {market}", _QUOTAS[market]
    try:
        answer = cloud.ec2().call(
            "get_service_quota",
            service="service-quotas",
            ServiceCode="ec2",
            QuotaCode=quota,
        )
    except ProviderError as error:
        return Check(name, None, f"not known: {error.message}", error.next)
    cpus = float(answer.get("Quota", {}).get("Value") or 0)
    detail = f"{cpus:g} vCPU at a time, {market}"
    if cpus >= _FEW_CPUS:
        return Check(name, True, detail)
    # Without a quota for spot, a box can still be an on-demand instance. So only a
    # missing quota for on-demand instances is reported as an error.
    ok = False if cpus < 1 and market == "on demand" else None
    return Check(name, ok, detail, f"request an increase: {_QUOTA_PAGE}/{quota}")


def _prices(cloud: Cloud) -> Check:
    try:
        cloud.call(
            "pricing",
            "get_products",
            "us-east-1",
            ServiceCode="AmazonEC2",
            Filters=[{"Type": "TERM_MATCH", "Field": "instanceType", "Value": _TYPE}],
            MaxResults=1,
        )
    except OneboxError as error:
        return Check("prices", None, f"not known: {error.message}", error.next)
    return Check("prices", True, "the price list answers")


def _alarms(cloud: Cloud) -> Check:
    try:
        cloud.ec2().call("describe_alarms", service="cloudwatch", MaxRecords=1)
    except OneboxError as error:
        return Check(
            "alarms",
            None,
            f"only the box itself enforces its deadline: {error.message}",
            error.next,
        )
    return Check("alarms", True, "AWS can enforce the deadline of a box too")
