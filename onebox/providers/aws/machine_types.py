"""Which machine types fit a need, where they can be had, and in what order."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from onebox.errors import UsageError
from onebox.providers import costs
from onebox.providers.aws import metadata, prices
from onebox.providers.aws.base_images import DEFAULT_ARCH, aws_arch, uname
from onebox.providers.aws.client import Answer, Cloud
from onebox.providers.base import Offer, Requirements
from onebox.providers.costs import Cost

# General, compute and memory machines since the sixth generation, with Intel, AMD
# or AWS's own processors and nothing else: no burstable or flexible ones, no metal.
_FAMILY = re.compile(r"[cmr]([6-9]|[1-9][0-9])[aig]")
# How EC2 calls sizes by their vCPUs, in all of these families.
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
# Memory for each vCPU, in bytes, by the family's letter.
_RATIOS = {"c": 2 << 30, "m": 4 << 30, "r": 8 << 30}
# Of so many types the prices are asked for; they differ little beyond.
_AT_MOST = 20


@dataclass(frozen=True)
class Region:
    """
    A region to look in, and the zones of it that may be used.

    A box there has a *disk* of so many bytes, and an *address* if that is public.
    """

    name: str
    zones: tuple[str, ...]
    disk: int
    disk_type: str
    address: bool


def offers(
    cloud: Cloud,
    regions: Sequence[Callable[[], Region]],
    need: Requirements,
    why: list[str] | None = None,
) -> list[Offer]:
    """
    Return the candidates for a need, best first.

    Args:
        why: Takes the reasons for which prices are not known.

    Raises:
        UsageError: No type fits; the nearest are named.
    """
    reasons: list[str] = [] if why is None else why
    parts = cloud.each(regions, lambda where: _in_region(cloud, where(), need, reasons))
    found = [size for part in parts for size in part]
    if not found:
        raise UsageError(
            f"no zone that may be used has {need.name}",
            next="more zones or regions under [aws] in onebox.toml",
        )
    order = {name: number for number, name in enumerate(need.types)}
    unknown = float("inf")

    def key(size: Offer) -> tuple[bool, int, float]:
        price = unknown if size.price is None else size.price
        return not size.spot, order.get(size.type, 0), price

    # Sorting is stable: at one price, regions and zones keep the user's order.
    return sorted(found, key=key)


def _in_region(
    cloud: Cloud, region: Region, need: Requirements, why: list[str]
) -> list[Offer]:
    name, types = region.name, _types(cloud, region.name, need)
    names = [str(one["InstanceType"]) for one in types]
    gib = -(-max(need.disk or region.disk, need.image.disk if need.image else 0) >> 30)
    offered, known, spot, disk = cloud.together(
        [
            lambda: _offered(cloud, name, names),
            lambda: prices.on_demand(cloud, name, names, why),
            lambda: prices.spot(cloud, name, names, why) if need.spot else {},
            lambda: prices.disk(cloud, name, region.disk_type, gib, why),
        ]
    )
    extras = [costs.disk(gib, disk)]
    if region.address:
        extras.append(Cost(costs.ADDRESS, prices.address()))
    found = []
    for described in types:
        size = _size(described, need, known.get(str(described["InstanceType"])))
        for zone in region.zones:
            if (size.type, zone) not in offered:
                continue
            here = replace(size, place=zone, extras=tuple(extras))
            if need.spot and "spot" in described.get(
                "SupportedUsageClasses", ("spot",)
            ):
                price = spot.get((size.type, zone))
                found.append(replace(here, spot=True, price=price))
            if not need.spot or need.fallback:
                found.append(here)
    return found


def _size(described: Answer, need: Requirements, price: float | None) -> Offer:
    cpu = described.get("VCpuInfo", {})
    archs = described.get("ProcessorInfo", {}).get("SupportedArchitectures", ())
    wanted = aws_arch(need.image.arch if need.image else DEFAULT_ARCH)
    arch = wanted if wanted in archs else next(iter(archs), wanted)
    cores = int(cpu.get("DefaultCores") or 0)
    return Offer(
        name=need.name,
        type=str(described["InstanceType"]),
        cpus=int(cpu.get("DefaultVCpus") or 1),
        memory=int(described.get("MemoryInfo", {}).get("SizeInMiB") or 1) << 20,
        price=price,
        on_demand=price,
        cores=cores or None,
        arch=uname(arch),
    )


def _types(cloud: Cloud, region: str, need: Requirements) -> list[Answer]:
    if need.types:
        return _named(cloud, region, need)
    arch = need.image.arch if need.image and need.image.arch else DEFAULT_ARCH
    names = _patterns(need, arch)
    found = _described(cloud, region, names) if names else []
    fitting = [one for one in found if _fits(one, need, arch)]
    if not fitting:
        raise UsageError(
            f"{region} has no {arch} machine with {need.cpus} vCPU and "
            f"{need.memory / (1 << 30):g} GB{_nearest(found)}",
            next="a smaller need, or a type by its name, such as --vm=m7i.48xlarge",
        )
    # The smaller ones first: they are the cheaper ones, as far as names tell.
    fitting.sort(key=lambda one: (_shape(one), str(one["InstanceType"])))
    return fitting[:_AT_MOST]


def _named(cloud: Cloud, region: str, need: Requirements) -> list[Answer]:
    found = {
        str(one["InstanceType"]): one for one in _described(cloud, region, need.types)
    }
    missing = [name for name in need.types if name not in found]
    if missing:
        raise _unknown(cloud, region, missing[0])
    arch = need.image.arch if need.image else ""
    booting = [found[name] for name in need.types if _boots(found[name], arch)]
    if not booting:
        kinds = found[need.types[0]].get("ProcessorInfo", {})
        is_for = ", ".join(map(uname, kinds.get("SupportedArchitectures", ())))
        raise UsageError(
            f"{need.types[0]} is {is_for}, and the image is for {arch}",
            next="another --vm, or an image of that architecture",
        )
    return booting


def _unknown(cloud: Cloud, region: str, name: str) -> UsageError:
    offered = cloud.pages(
        "describe_instance_type_offerings",
        "InstanceTypeOfferings",
        region,
        LocationType="region",
    )
    known = sorted({str(one["InstanceType"]) for one in offered})
    near = difflib.get_close_matches(name, known, 3, 0.7)
    return UsageError(
        f"{region} has no machine type {name}",
        next=f"did you mean {', '.join(near)}?" if near else "another --vm or region",
    )


def _described(cloud: Cloud, region: str, names: Sequence[str]) -> list[Answer]:
    # A filter, not a list: EC2 refuses a list that holds one unknown name.
    return list(
        cloud.pages(
            "describe_instance_types",
            "InstanceTypes",
            region,
            Filters=metadata.filters({"instance-type": names}),
        )
    )


def _offered(cloud: Cloud, region: str, names: Sequence[str]) -> set[tuple[str, str]]:
    rows = cloud.pages(
        "describe_instance_type_offerings",
        "InstanceTypeOfferings",
        region,
        LocationType="availability-zone",
        Filters=metadata.filters({"instance-type": names}),
    )
    return {(str(row["InstanceType"]), str(row["Location"])) for row in rows}


def _patterns(need: Requirements, arch: str) -> list[str]:
    """Return the names to look for: in each family, the smallest that is enough."""
    makers = "g" if arch == "aarch64" else "ai"
    found = []
    for letter, ratio in _RATIOS.items():
        for cpus, suffix in _SUFFIXES.items():
            if cpus >= need.cpus and cpus * ratio >= need.memory:
                found += [f"{letter}?{maker}.{suffix}" for maker in makers]
                break
    return found or [f"{letter}?{m}.48xlarge" for letter in _RATIOS for m in makers]


def _fits(described: Answer, need: Requirements, arch: str) -> bool:
    family = str(described["InstanceType"]).partition(".")[0]
    cpus, memory = _shape(described)
    return bool(
        _FAMILY.fullmatch(family)
        and not described.get("BareMetal")
        and not described.get("BurstablePerformanceSupported")
        and _boots(described, arch)
        and cpus >= need.cpus
        and memory >= need.memory
    )


def _boots(described: Answer, arch: str) -> bool:
    kinds: Any = described.get("ProcessorInfo", {}).get("SupportedArchitectures", ())
    return not arch or aws_arch(arch) in kinds


def _shape(described: Answer) -> tuple[int, int]:
    cpus = int(described.get("VCpuInfo", {}).get("DefaultVCpus") or 0)
    return cpus, int(described.get("MemoryInfo", {}).get("SizeInMiB") or 0) << 20


def _nearest(found: Sequence[Answer]) -> str:
    known = [
        one
        for one in found
        if _FAMILY.fullmatch(str(one["InstanceType"]).partition(".")[0])
    ]
    largest = sorted(known, key=_shape, reverse=True)[:3]
    said = [
        f"{one['InstanceType']} ({_shape(one)[0]} vCPU, {_shape(one)[1] >> 30} GB)"
        for one in largest
    ]
    return f"; the nearest are {', '.join(said)}" if said else ""
