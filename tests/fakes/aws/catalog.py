"""The public images, machine types and prices that AWS offers to the account."""

from __future__ import annotations

import fnmatch
import hashlib
import json
from datetime import datetime, timedelta, timezone
from typing import Any

from moto.ec2.models.amis import Ami
from moto.ec2.models.instance_types import INSTANCE_TYPE_OFFERINGS, INSTANCE_TYPES

# Few regions, which keeps the tests fast.
REGIONS = ("us-east-1", "us-west-2", "eu-west-1")
CANONICAL, DEBIAN, OTHER_PUBLISHER = "099720109477", "136693071363", "666666666666"
# Machine types without a price.
UNPRICED: set[str] = set()
# Bytes of the written blocks of a snapshot, by its id; None: EC2 omits the figure.
BLOCKS = 3 << 30
WRITTEN: dict[str, int | None] = {}
# USD an hour for one vCPU of m7i, and the factors of the other families.
_VCPU = 0.0504
_LETTER = {"c": 0.885, "m": 1.0, "r": 1.3125}
_MAKER = {"a": 0.95, "i": 1.0, "g": 0.8}


class CatalogImage(Ami):
    """An image that shows the size of its disk, as EC2's do and moto's do not."""

    gib = 8
    fails = ""

    @property
    def block_device_mappings(self) -> list[dict[str, Any]]:
        """Return the disks of an instance from this image."""
        found: list[dict[str, Any]] = super().block_device_mappings
        found[0]["Ebs"].update(VolumeSize=self.gib, DeleteOnTermination=True)
        return found


def image_id(region: str, name: str) -> str:
    """Return the id of a public image; it differs by region."""
    return "ami-" + hashlib.sha256(f"{region} {name}".encode()).hexdigest()[:17]


def add_public_images(backend: Any) -> None:
    """Add the public images of a region, with some of another publisher."""
    region = backend.region_name
    for arch, vendor in (("x86_64", "amd64"), ("arm64", "arm64")):
        for code, version, kind in (
            ("noble", "24.04", "hvm-ssd-gp3"),
            ("jammy", "22.04", "hvm-ssd"),
        ):
            stem = f"ubuntu/images/{kind}/ubuntu-{code}-{version}-{vendor}-server-"
            _put(backend, stem + "20260801", CANONICAL, arch, "/dev/sda1", 1)
            _put(backend, stem + "20261101", CANONICAL, arch, "/dev/sda1", 101)
            _put(backend, stem + "20261120", OTHER_PUBLISHER, arch, "/dev/sda1", 120)
        name = f"debian-12-{vendor}-20261110-1"
        _put(backend, name, DEBIAN, arch, "/dev/xvda", 110)
    assert image_id(region, "x").startswith("ami-")


def _put(backend: Any, name: str, owner: str, arch: str, root: str, day: int) -> None:
    ami = CatalogImage(
        backend,
        image_id(backend.region_name, name + owner),
        name=name,
        owner_id=owner,
        public=True,
        virtualization_type="hvm",
        architecture=arch,
        root_device_type="ebs",
        root_device_name=root,
        creation_date=datetime(2026, 1, 1) + timedelta(days=day),
        region_name=f"{backend.region_name}a",
    )
    backend.amis[ami.id] = ami


def parameters(region: str) -> dict[str, str]:
    """Return the public SSM parameters that name the newest image of each base."""
    found = {}
    for vendor in ("amd64", "arm64"):
        for code, version, kind, disk in (
            ("noble", "24.04", "hvm-ssd-gp3", "ebs-gp3"),
            ("jammy", "22.04", "hvm-ssd", "ebs-gp2"),
        ):
            name = (
                f"ubuntu/images/{kind}/ubuntu-{code}-{version}-{vendor}-server-20261101"
            )
            stem = f"/aws/service/canonical/ubuntu/server/{version}/stable/current"
            found[f"{stem}/{vendor}/hvm/{disk}/ami-id"] = image_id(
                region, name + CANONICAL
            )
        found[f"/aws/service/debian/release/12/latest/{vendor}"] = image_id(
            region, f"debian-12-{vendor}-20261110-1" + DEBIAN
        )
    return found


def described(type_: str) -> dict[str, Any]:
    """Return EC2's description of a machine type, {} if it does not exist."""
    found: dict[str, Any] = INSTANCE_TYPES.get(type_, {})
    return found


def is_offered(region: str, zone: str, type_: str) -> bool:
    """Return whether a zone has a machine type."""
    return any(
        one["Location"] == zone and one["InstanceType"] == type_
        for one in INSTANCE_TYPE_OFFERINGS["availability-zone"].get(region, ())
    )


def price(type_: str) -> float | None:
    """Return the on-demand price of an hour, None if it is not listed."""
    cpus = described(type_).get("VCpuInfo", {}).get("DefaultVCpus")
    letter, maker = type_[:1], type_.partition(".")[0][-1:]
    if not cpus or letter not in _LETTER or maker not in _MAKER or type_ in UNPRICED:
        return None
    return round(float(_VCPU * cpus * _LETTER[letter] * _MAKER[maker]), 6)


def products(filters: list[dict[str, str]]) -> list[str]:
    """Return the rows of the price list that filters select, as JSON each."""
    rows = []
    for type_ in INSTANCE_TYPES:
        cost = price(type_)
        if cost is not None:
            rows.append(_row({"instanceType": type_}, cost, "Hrs", filters))
    disk = {"volumeApiName": "gp3", "productFamily": "Storage"}
    rows.append(_row(disk, 0.08, "GB-Mo", filters))
    return [row for row in rows if row]


def _row(
    attributes: dict[str, str], cost: float, unit: str, filters: list[dict[str, str]]
) -> str:
    wanted = {one["Field"]: one for one in filters}
    here = {
        "operatingSystem": "Linux",
        "tenancy": "Shared",
        "preInstalledSw": "NA",
        "capacitystatus": "Used",
        "regionCode": wanted.get("regionCode", {}).get("Value", "us-east-1"),
        "servicecode": "AmazonEC2",
        **attributes,
    }
    if unit != "Hrs":
        for field in ("operatingSystem", "tenancy", "preInstalledSw", "capacitystatus"):
            del here[field]
    for field, one in wanted.items():
        values = one["Value"].split(",") if one["Type"] == "ANY_OF" else [one["Value"]]
        if here.get(field) not in values:
            return ""
    dimension = {"unit": unit, "pricePerUnit": {"USD": f"{cost:.10f}"}}
    return json.dumps(
        {
            "product": {"productFamily": "x", "attributes": here},
            "terms": {"OnDemand": {"T.1": {"priceDimensions": {"T.1.1": dimension}}}},
        }
    )


def spot_history(zones: list[str], types: list[str]) -> list[dict[str, Any]]:
    """Return spot prices of now and before; they differ by zone."""
    rows = []
    for type_ in types:
        cost = price(type_)
        for zone in zones:
            if cost is None or not is_offered(zone[:-1], zone, type_):
                continue
            seed = hashlib.sha256(f"{type_} {zone}".encode()).digest()[0]
            now = datetime.now(timezone.utc)
            for age, factor in ((3, 1.0), (30, 1.7)):
                rows.append(
                    {
                        "InstanceType": type_,
                        "AvailabilityZone": zone,
                        "ProductDescription": "Linux/UNIX",
                        "SpotPrice": f"{cost * (0.3 + seed / 1000) * factor:.6f}",
                        "Timestamp": now - timedelta(hours=age),
                    }
                )
    return rows


def matching(pattern: str, names: list[str]) -> list[str]:
    """Return the names that match a filter pattern of EC2."""
    return [name for name in names if fnmatch.fnmatchcase(name, pattern)]
