"""
Read the prices of machines, disks and addresses in Google's price catalogue.

The catalogue does not list machine types. For each family and region it has the price
of one core for an hour, and of one GiB of memory for an hour. The text of an entry's
description tells which price it is. An entry that is not exactly as expected is
ignored. A price that is unknown is None, never 0.

Disks and public addresses are in the catalogue too, as "Balanced PD Capacity",
"External IP Charge on a Standard VM" and the like. The last tier of such a price
counts, because the first tier may be an account's free allowance. Traffic to the
internet is a constant: from North America and Europe it costs at most $0.12 a GB, for
the first TB a month, in the Premium Tier, which is Google's default (VPC network
pricing, as of 2026). Traffic from other regions costs more, and has no price here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from onebox.errors import OneboxError
from onebox.providers import costs
from onebox.providers.gcp import sdk
from onebox.providers.gcp.client import Cloud
from onebox.providers.gcp.machine_families import FAMILIES

_PUBLIC = "https://cloudbilling.googleapis.com"
_COMPUTE_ENGINE = "6F81-5844-456A"
_SKU = re.compile(r"(Spot Preemptible )?(.+) (Core|Ram) running in .+")
_FAMILY_OF = {family.sku: name for name, family in FAMILIES.items()}
_MACHINE = ("Core", "Ram")
_UNITS = {"Core": "h", "Ram": "GiBy.h", "Disk": "GiBy.mo", "Address": "h"}
_USAGE = {False: "OnDemand", True: "Preemptible"}

_DISK = re.compile(r"(.+ Capacity)(?: in .+)?")
_DISKS = {
    "Balanced PD Capacity": "pd-balanced",
    "Storage PD Capacity": "pd-standard",
    "SSD backed PD Capacity": "pd-ssd",
    "Hyperdisk Balanced Capacity": "hyperdisk-balanced",
}
_ADDRESSES = {
    "External IP Charge on a Standard VM": False,
    "External IP Charge on a Spot Preemptible VM": True,
}
_GLOBAL = "global"
EGRESS = {"us": 0.12, "northamerica": 0.12, "europe": 0.12}

# The key of a price consists of four items: a machine family or a kind of disk ("" for
# an address), the region, whether the price is for spot, and "Core", "Ram", "Disk" or
# "Address".
_Key = tuple[str, str, bool, str]


class Prices:
    """
    The prices in the catalogue; each price is requested at most once.

    Attributes:
        problem: The reason why prices are unknown, "" if there was no problem.
    """

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._known: dict[_Key, float] = {}
        self._requested: set[_Key] = set()
        self.problem = ""

    def load(
        self, families: Iterable[str], regions: Iterable[str], disks: Iterable[str] = ()
    ) -> None:
        """
        Request the prices of these families and disks in these regions.

        If the request fails, the prices stay unknown, and `problem` says why.
        """
        regions = list(regions)
        required = {
            (family, region, spot, part)
            for family in families
            if family in FAMILIES
            for region in regions
            for spot in (False, True)
            for part in _MACHINE
        }
        kinds = [kind for kind in disks if kind in _DISKS.values()]
        required |= {(kind, at, False, "Disk") for kind in kinds for at in regions}
        if kinds:
            required |= {("", _GLOBAL, spot, "Address") for spot in (False, True)}
        if required <= self._requested:
            return
        self._requested |= required
        settings = self._cloud.settings
        if settings.endpoint and not settings.billing_endpoint:
            self.problem = (
                "with [gcp] endpoint, the catalogue needs an endpoint too: "
                "[gcp] billing_endpoint"
            )
            return
        try:
            for page in self._pages():
                for key, price in _read(page.get("skus", ())):
                    if key in required:
                        self._known[key] = price
                if required <= self._known.keys():
                    return
        except _failures() as error:
            self.problem = f"{type(error).__name__}: {' '.join(str(error).split())}"

    def hourly(
        self, type_: str, region: str, spot: bool, cpus: int, gib: float
    ) -> float | None:
        """Return the price of a machine type in USD an hour, None if it is unknown."""
        name = type_.partition("-")[0]
        core = self._known.get((name, region, spot, "Core"))
        ram = self._known.get((name, region, spot, "Ram"))
        if core is None or ram is None:
            return None
        return round(cpus * core + gib * ram, 6)

    def disk(self, kind: str, region: str, gib: float) -> float | None:
        """Return the price of a disk in USD an hour, None if it is unknown."""
        month = self._known.get((kind, region, False, "Disk"))
        return None if month is None else month * gib / costs.HOURS_A_MONTH

    def address(self, spot: bool) -> float | None:
        """Return the hourly price of a public address in USD, None if it is unknown."""
        return self._known.get(("", _GLOBAL, spot, "Address"))

    def _pages(self) -> Iterator[Mapping[str, Any]]:
        base = (self._cloud.settings.billing_endpoint or _PUBLIC).rstrip("/")
        address = f"{base}/v1/services/{_COMPUTE_ENGINE}/skus"
        session = sdk.session(self._cloud.account.credentials)
        parameters = {"currencyCode": "USD", "pageSize": "5000"}
        while True:
            answer = session.get(address, params=parameters, timeout=20)
            answer.raise_for_status()
            page = answer.json()
            if not isinstance(page, dict):
                raise ValueError("the price catalogue is not as expected")
            yield page
            if not page.get("nextPageToken"):
                return
            parameters["pageToken"] = page["nextPageToken"]


def _failures() -> tuple[type[Exception], ...]:
    # The last three exceptions can occur if a page is not as Google's documentation
    # describes it.
    return (*sdk.failures(), OneboxError, ValueError, TypeError, AttributeError)


def _read(skus: Iterable[Any]) -> Iterator[tuple[_Key, float]]:
    for sku in skus:
        named = _named(str(sku.get("description", "")))
        if named is None:
            continue
        name, spot, part = named
        # The price of an address is the same in all regions. Its description, and not
        # its category, tells whether it is for spot.
        regions = [_GLOBAL] if part == "Address" else sku.get("serviceRegions", ())
        usage = sku.get("category", {}).get("usageType")
        if part != "Address" and usage != _USAGE[spot]:
            continue
        price = _price(sku, _UNITS[part])
        if price is not None:
            for region in regions:
                yield (name, str(region), spot, part), price


def _named(description: str) -> tuple[str, bool, str] | None:
    """
    Return three items of a price's key, read from its description in the catalogue.

    The missing item is the region. Return None for a price that onebox does not use.
    """
    if description in _ADDRESSES:
        return "", _ADDRESSES[description], "Address"
    disk = _DISK.fullmatch(description)
    if disk and disk[1] in _DISKS:
        return _DISKS[disk[1]], False, "Disk"
    found = _SKU.fullmatch(description)
    if found and found[2] in _FAMILY_OF:
        return _FAMILY_OF[found[2]], bool(found[1]), found[3]
    return None


def _price(sku: Mapping[str, Any], unit: str) -> float | None:
    try:
        expression = sku["pricingInfo"][-1]["pricingExpression"]
        # The last tier counts, because the first may be the free allowance of an
        # account.
        price = expression["tieredRates"][-1]["unitPrice"]
        amount = int(price.get("units", 0)) + int(price.get("nanos", 0)) / 1e9
    except (KeyError, IndexError, TypeError, ValueError):
        return None
    right = expression.get("usageUnit") == unit and price.get("currencyCode") == "USD"
    return amount if right and amount > 0 else None
