"""The zones, machine types, images and prices that Google offers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.fakes.gcp.operations import ROOT, now

ZONES = {
    "us-central1": ("us-central1-a", "us-central1-b", "us-central1-f"),
    "europe-west4": ("europe-west4-a",),
    "us-east1": ("us-east1-b", "us-east1-c"),
}
ALL_ZONES = tuple(zone for zones in ZONES.values() for zone in zones)

# name: vCPU, GiB, architecture, shared
_TYPES = {
    "e2-micro": (2, 1, "X86_64", True),
    "e2-standard-4": (4, 16, "X86_64", False),
    "n2d-standard-4": (4, 16, "X86_64", False),
    "n2d-standard-16": (16, 64, "X86_64", False),
    "n2d-standard-64": (64, 256, "X86_64", False),
    "n2-standard-4": (4, 16, "X86_64", False),
    "n2-standard-64": (64, 256, "X86_64", False),
    "c3-standard-4": (4, 16, "X86_64", False),
    "c3-standard-4-lssd": (4, 16, "X86_64", False),
    "c3-standard-192-metal": (192, 768, "X86_64", False),
    "n4-standard-4": (4, 16, "X86_64", False),
    "g2-standard-4": (4, 16, "X86_64", False),
    "a2-highgpu-1g": (12, 85, "X86_64", False),
    "m3-megamem-64": (64, 976, "X86_64", False),
    "t2a-standard-4": (4, 16, "ARM64", False),
    "c4a-standard-4": (4, 16, "ARM64", False),
}
# Types with GPUs do not support live migration.
ACCELERATORS = {"g2-standard-4": "nvidia-l4", "a2-highgpu-1g": "nvidia-tesla-a100"}
# Zones that lack a type.
_NOT_IN = {("us-central1-f", "c3-standard-4"), ("europe-west4-a", "n4-standard-4")}

_PERSISTENT = ("pd-balanced", "pd-ssd", "pd-standard")
DISKS = {
    "e2": _PERSISTENT,
    "n2": _PERSISTENT,
    "n2d": _PERSISTENT,
    "c3": ("pd-balanced", "pd-ssd", "hyperdisk-balanced"),
    "g2": ("pd-balanced", "pd-ssd"),
    "a2": _PERSISTENT,
    "n4": ("hyperdisk-balanced",),
    "m3": ("pd-balanced", "pd-ssd", "hyperdisk-balanced"),
    "t2a": _PERSISTENT,
    "c4a": ("hyperdisk-balanced",),
}

FAMILIES = {
    ("ubuntu-os-cloud", "ubuntu-2404-lts-amd64"): "ubuntu-2404-noble-amd64-v20261101",
    ("ubuntu-os-cloud", "ubuntu-2404-lts-arm64"): "ubuntu-2404-noble-arm64-v20261101",
    ("ubuntu-os-cloud", "ubuntu-2204-lts"): "ubuntu-2204-jammy-v20261020",
    ("debian-cloud", "debian-12"): "debian-12-bookworm-v20261014",
    ("debian-cloud", "debian-12-arm64"): "debian-12-bookworm-arm64-v20261014",
}

# USD for a core-hour and a GiB-hour, on demand and as spot, in us-central1.
PRICES = {
    "N2D AMD Instance": (0.027502, 0.003686, 0.00796, 0.001067),
    "N2 Instance": (0.031611, 0.004237, 0.01498, 0.002009),
    "C3 Instance": (0.03398, 0.00456, 0.00833, 0.00112),
    "N4 Instance": (0.0332, 0.0044, 0.0098, 0.0013),
    "T2A Arm Instance": (0.0308, 0.0041, 0.0069, 0.0009),
    "E2 Instance": (0.021811, 0.002923, 0.0065, 0.0008),
}


# USD for a GiB and month of disk, and for an address and hour.
DISK_PRICES = {
    "Balanced PD": 0.1,
    "Storage PD": 0.04,
    "SSD backed PD": 0.17,
    "Hyperdisk Balanced": 0.08,
}
ADDRESS_PRICES = {"Standard": 0.005, "Spot Preemptible": 0.0025}


def machine_types(zone: str) -> Iterator[dict[str, Any]]:
    """Yield the machine types of a zone, as the API shows them."""
    for place, (name, (cpus, gib, arch, shared)) in enumerate(_TYPES.items()):
        if (zone, name) not in _NOT_IN:
            yield {
                "kind": "compute#machineType",
                "id": str(1000 + place),
                "name": name,
                "guestCpus": cpus,
                "memoryMb": gib * 1024,
                "architecture": arch,
                "isSharedCpu": shared,
                "accelerators": [
                    {"guestAcceleratorType": kind, "guestAcceleratorCount": 1}
                    for kind in [ACCELERATORS.get(name)]
                    if kind
                ],
                "zone": zone,
                "selfLink": f"{ROOT}/zones/{zone}/machineTypes/{name}",
                "creationTimestamp": now(),
            }


def skus() -> list[dict[str, Any]]:
    """Return the price catalogue, with entries that must not be used as a price."""
    found = [_sku("Commitment v1: N2D Cpu in Americas for 1 Year", "Commit1Yr", 0.001)]
    for family, prices in PRICES.items():
        for spot in (False, True):
            usage = "Preemptible" if spot else "OnDemand"
            prefix = "Spot Preemptible " if spot else ""
            core, ram = prices[2:] if spot else prices[:2]
            name = f"{prefix}{family}"
            found += [
                _sku(f"{name} Core running in Americas", usage, core),
                _sku(f"{name} Ram running in Americas", usage, ram, "GiBy.h"),
                _sku(f"{name} Core running in Paris", usage, 9.0, regions=["paris1"]),
            ]
    for name, month in DISK_PRICES.items():
        here = _sku(f"{name} Capacity", "OnDemand", month, "GiBy.mo")
        twice = _sku(f"Regional {name} Capacity", "OnDemand", 2 * month, "GiBy.mo")
        there = f"{name} Capacity in Paris"
        found += [
            here,
            twice,
            _sku(there, "OnDemand", 9.0, "GiBy.mo", regions=["paris1"]),
        ]
    for name, price in ADDRESS_PRICES.items():
        one = _sku(f"External IP Charge on a {name} VM", "OnDemand", price, "h")
        one["serviceRegions"] = ["global"]
        # The first hours of a month are free: the last tier has the price.
        rates = one["pricingInfo"][0]["pricingExpression"]["tieredRates"]
        nothing = {"currencyCode": "USD", "units": "0", "nanos": 0}
        rates[0]["startUsageAmount"] = 744
        rates.insert(0, {"startUsageAmount": 0, "unitPrice": nothing})
        found.append(one)
    # A commitment whose description looks like an on-demand price.
    found.append(_sku("N2D AMD Instance Core running in Americas", "Commit3Yr", 0.002))
    # Prices of 0, and prices by the month, are not prices of an hour.
    found.append(
        _sku("N2 Custom Instance Core running in Americas", "OnDemand", 0.0001)
    )
    found.append(_sku("C4 Instance Core running in Americas", "OnDemand", 0.0))
    found.append(_sku("C4 Instance Ram running in Americas", "OnDemand", 1, "GiBy.mo"))
    return found


def _sku(
    description: str,
    usage: str,
    price: float,
    unit: str = "h",
    regions: list[str] | None = None,
) -> dict[str, Any]:
    amount = {"currencyCode": "USD", "units": str(int(price))}
    amount["nanos"] = round(price % 1 * 1e9)  # type: ignore[assignment]
    return {
        "name": f"services/6F81-5844-456A/skus/{abs(hash(description)):X}",
        "skuId": f"{abs(hash(description)):X}"[:14],
        "description": description,
        "category": {
            "serviceDisplayName": "Compute Engine",
            "resourceFamily": "Compute",
            "resourceGroup": "CPU",
            "usageType": usage,
        },
        "serviceRegions": regions or ["us-central1", "us-east1"],
        "pricingInfo": [
            {
                "pricingExpression": {
                    "usageUnit": unit,
                    "tieredRates": [{"startUsageAmount": 0, "unitPrice": amount}],
                }
            }
        ],
    }
