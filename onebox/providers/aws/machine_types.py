"""
Find the EC2 instance types that meet some requirements, and return offers of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from onebox.errors import UsageError
from onebox.providers import costs
from onebox.providers.aws import metadata, prices
from onebox.providers.aws.base_images import aws_arch
from onebox.providers.aws.client import EC2, Answer
from onebox.providers.aws.instances import region_of
from onebox.providers.aws.network import Network, Subnet
from onebox.providers.aws.settings import AWSSettings
from onebox.providers.costs import Cost
from onebox.providers.kernel import ranking
from onebox.providers.values import Offer, Requirements

# If the user names no type, onebox offers these families: general, compute and memory
# types of the sixth or a later generation, with processors of Intel, AMD or AWS. They
# have no local disks, and are neither burstable nor flex types. `_listed` excludes
# their bare-metal types.
_FAMILY = re.compile(r"[cmr]([6-9]|[1-9][0-9])[aig]")
# The suffix in the name of a type, by its number of vCPUs. All of these families use
# the same suffixes.
_SUFFIXES = {
    2: "large",
    4: "xlarge",
    8: "2xlarge",
    16: "4xlarge",
    32: "8xlarge",
    48: "12xlarge",
    64: "16xlarge",
    96: "24xlarge",
    128: "32xlarge",
    192: "48xlarge",
}
# Bytes of memory for each vCPU, by the letter of the family.
_RATIOS = {"c": 2 << 30, "m": 4 << 30, "r": 8 << 30}
# If the user names no type, prices are requested for at most this many types, and only
# these are offered. Further types would differ little from them.
_AT_MOST = 20
# An instance type's family is named by the letters with which the type's name begins.
# Families named by one of these single letters share one vCPU limit (EC2's quota
# L-1216C47A, for spot L-34B43A08). Each other family has a limit of its own.
_STANDARD = "acdhimrtz"


def offers(
    network: Network,
    regions: Sequence[EC2],
    requirements: Requirements,
    why: list[str],
) -> list[Offer]:
    """
    Return the offers that meet *requirements* in all regions, best first.

    Args:
        why: A list to which the reasons why prices are unknown are appended.

    Raises:
        UsageError: No type fits, and the message names the nearest ones; or no zone
            that may be used offers a type that fits.
    """
    parts = regions[0].cloud.each(
        regions,
        lambda ec2: _in_subnets(
            ec2, network.usable_subnets(ec2), network.settings, requirements, why
        ),
    )
    found = [offer for part in parts for offer in part]
    if not found:
        raise UsageError(
            f"no zone that may be used has {requirements.name}",
            next="more zones or regions under [aws] in onebox.toml",
        )
    return ranking.ranked(found, requirements)


def in_zone(
    network: Network, ec2: EC2, zone: str, requirements: Requirements
) -> list[Offer]:
    """Return the offers that meet *requirements* in one zone, best first."""
    subnets = [network.subnet(ec2, zone)]
    found = _in_subnets(ec2, subnets, network.settings, requirements, [])
    return ranking.ranked(found, requirements)


def _in_subnets(
    ec2: EC2,
    subnets: Sequence[Subnet],
    settings: AWSSettings,
    requirements: Requirements,
    why: list[str],
) -> list[Offer]:
    types = _types(ec2, requirements)
    names = [str(one["InstanceType"]) for one in types]
    gib = ranking.disk_gib(requirements, settings.disk)
    offered, known, spot, disk = ec2.cloud.together(
        [
            lambda: _offered(ec2, names),
            lambda: prices.on_demand(ec2, names, why),
            lambda: prices.spot(ec2, names, why) if requirements.spot else {},
            lambda: prices.disk(ec2, settings.disk_type, gib, why),
        ]
    )
    extras = [costs.disk(gib, disk)]
    if any(subnet.public for subnet in subnets):
        extras.append(Cost(costs.ADDRESS, prices.ADDRESS))
    found = []
    for described in types:
        offer = replace(_offer(described, requirements), extras=tuple(extras))
        price = known.get(offer.type)
        for zone in [subnet.zone for subnet in subnets]:
            if (offer.type, zone) not in offered:
                continue
            here = replace(
                offer, place=zone, machine_price=price, machine_on_demand=price
            )
            for is_spot in ranking.markets(requirements):
                if not is_spot:
                    found.append(here)
                elif "spot" in described.get("SupportedUsageClasses", ("spot",)):
                    now = spot.get((offer.type, zone))
                    found.append(replace(here, spot=True, machine_price=now))
    return found


def _offer(described: Answer, requirements: Requirements) -> Offer:
    """Return an instance type as an offer that has no place and no price yet."""
    cpu, archs = described.get("VCpuInfo", {}), _archs(described)
    arch = ranking.arch_of(requirements)
    return Offer(
        name=requirements.name,
        type=str(described["InstanceType"]),
        cpus=int(cpu.get("DefaultVCpus") or 1),
        memory=int(described.get("MemoryInfo", {}).get("SizeInMiB") or 1) << 20,
        machine_price=None,
        machine_on_demand=None,
        cores=int(cpu.get("DefaultCores") or 0) or None,
        # An old type supports two architectures and lists i386 first, so the first one
        # is used only if the required one is not listed.
        arch=arch if arch in archs else next(iter(archs), arch),
    )


def _archs(described: Answer) -> list[str]:
    info = described.get("ProcessorInfo", {})
    return [ranking.uname(str(arch)) for arch in info.get("SupportedArchitectures", ())]


def _types(ec2: EC2, requirements: Requirements) -> list[Answer]:
    if requirements.types:
        return _named(ec2, requirements)
    listed = [one for one in _described(ec2, _patterns(requirements)) if _listed(one)]
    by_size = [(_offer(one, requirements), one) for one in listed]
    fitting = [
        (offer, one) for offer, one in by_size if ranking.fits(offer, requirements)
    ]
    if not fitting:
        raise ranking.no_fit(ec2.region, requirements, [offer for offer, _ in by_size])
    # If too many types fit, the smallest are kept. Prices are not known yet, and small
    # types are cheap.
    fitting.sort(key=lambda pair: (pair[0].cpus, pair[0].memory, pair[0].type))
    return [one for _, one in fitting[:_AT_MOST]]


def _named(ec2: EC2, requirements: Requirements) -> list[Answer]:
    found = {
        str(one["InstanceType"]): one for one in _described(ec2, requirements.types)
    }
    for name in requirements.types:
        if name not in found:
            offered = ec2.pages(
                "describe_instance_type_offerings",
                "InstanceTypeOfferings",
                LocationType="region",
            )
            known = {str(one["InstanceType"]) for one in offered}
            raise ranking.no_such_type(ec2.region, name, known)
    arch = requirements.image.arch if requirements.image else ""
    booting = [
        found[name]
        for name in requirements.types
        if not arch or arch in _archs(found[name])
    ]
    if not booting:
        first = ", ".join(_archs(found[requirements.types[0]]))
        raise ranking.wrong_arch(requirements.types, first, requirements)
    return booting


def _described(ec2: EC2, names: Sequence[str]) -> list[Answer]:
    # The names are passed as a filter, because EC2 refuses a list of names that
    # contains an unknown one.
    filters = metadata.filters({"instance-type": names})
    return ec2.pages("describe_instance_types", "InstanceTypes", Filters=filters)


def _offered(ec2: EC2, names: Sequence[str]) -> set[tuple[str, str]]:
    """Return pairs: a type of *names*, and a zone that offers this type."""
    rows = ec2.pages(
        "describe_instance_type_offerings",
        "InstanceTypeOfferings",
        LocationType="availability-zone",
        Filters=metadata.filters({"instance-type": names}),
    )
    return {(str(row["InstanceType"]), str(row["Location"])) for row in rows}


def _patterns(requirements: Requirements) -> list[str]:
    """
    Return patterns for the names of the machine types to ask EC2 for.

    For each letter of a family, such as "c", they match the smallest types that meet
    the requirements. If no type of any family does, they match the largest types, so
    that the error can name near types.
    """
    makers = "g" if aws_arch(ranking.arch_of(requirements)) == "arm64" else "ai"
    found = []
    for letter, ratio in _RATIOS.items():
        for cpus, suffix in _SUFFIXES.items():
            if cpus >= requirements.cpus and cpus * ratio >= requirements.memory:
                found += [f"{letter}?{maker}.{suffix}" for maker in makers]
                break
    return found or [f"{letter}?{m}.48xlarge" for letter in _RATIOS for m in makers]


def _listed(described: Answer) -> bool:
    """Return whether onebox may offer a type that the user did not name."""
    family = str(described["InstanceType"]).partition(".")[0]
    return bool(
        _FAMILY.fullmatch(family)
        and not described.get("BareMetal")
        and not described.get("BurstablePerformanceSupported")
    )


def quota(offer: Offer) -> tuple[str, bool, str]:
    """
    Return a key for the vCPU limit of an offer; offers with one limit share the key.
    """
    letters = re.match("[a-z]+", offer.type)
    family = letters[0] if letters else ""
    standard = len(family) == 1 and family in _STANDARD
    region = region_of(offer.place)
    return region, offer.spot, "standard" if standard else family
