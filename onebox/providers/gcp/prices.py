"""
Read what a machine costs from Google's price catalogue.

The catalogue knows no machine types, only what a core-hour and a GiB-hour of a
family cost in a region, told apart by their descriptions. What does not read
exactly as expected has no price here: unknown is None, never 0.

Disks and public addresses are in the catalogue too, under "Balanced PD Capacity",
"External IP Charge on a Standard VM" and the like: the last tier counts, without
what an account has free. What leaves for the internet is not read from there: from
the regions of North America and Europe it costs $0.12 a GB at most, for the first
TB a month, in the Premium Tier that Google gives by default (VPC network pricing,
as of 2026); from other regions it is dearer, by how much is not known here.
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
_EGRESS = {"us": 0.12, "northamerica": 0.12, "europe": 0.12}

# family or kind of disk, region, spot, and "Core", "Ram", "Disk" or "Address"
_Key = tuple[str, str, bool, str]


class Prices:
    """
    The prices of machines, asked for once.

    Attributes:
        problem: Why there are none, if that is so.
    """

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._known: dict[_Key, float] = {}
        self._asked: set[_Key] = set()
        self.problem = ""

    def load(
        self,
        families: Iterable[str],
        regions: Iterable[str],
        disks: Iterable[str] = (),
    ) -> None:
        """Ask for families and disks in these regions; what fails leaves no price."""
        regions = list(regions)
        wanted = {
            (family, region, spot, part)
            for family in families
            if family in FAMILIES
            for region in regions
            for spot in (False, True)
            for part in _MACHINE
        }
        kinds = [kind for kind in disks if kind in _DISKS.values()]
        wanted |= {(kind, at, False, "Disk") for kind in kinds for at in regions}
        if kinds:
            wanted |= {("", _GLOBAL, spot, "Address") for spot in (False, True)}
        if wanted <= self._asked:
            return
        self._asked |= wanted
        settings = self._cloud.settings
        if settings.endpoint and not settings.billing_endpoint:
            self.problem = (
                "with [gcp] endpoint, the price catalogue needs an address too: "
                "[gcp] billing_endpoint"
            )
            return
        try:
            for page in self._pages():
                for key, price in _read(page.get("skus", ())):
                    if key in wanted:
                        self._known[key] = price
                if wanted <= self._known.keys():
                    return
        except _failures() as error:
            self.problem = f"{type(error).__name__}: {' '.join(str(error).split())}"

    def hourly(
        self, type_: str, region: str, spot: bool, cpus: int, gib: float
    ) -> float | None:
        """Return what a type costs in USD an hour, None if that is not known."""
        name = type_.partition("-")[0]
        core = self._known.get((name, region, spot, "Core"))
        ram = self._known.get((name, region, spot, "Ram"))
        if core is None or ram is None:
            return None
        return round(cpus * core + gib * ram, 6)

    def disk(self, kind: str, region: str, gib: float) -> float | None:
        """Return what a disk costs in USD an hour, None if that is not known."""
        month = self._known.get((kind, region, False, "Disk"))
        return None if month is None else month * gib / costs.HOURS_A_MONTH

    def address(self, spot: bool) -> float | None:
        """Return what a public address costs in USD an hour, None if not known."""
        return self._known.get(("", _GLOBAL, spot, "Address"))

    def _pages(self) -> Iterator[Mapping[str, Any]]:
        base = (self._cloud.settings.billing_endpoint or _PUBLIC).rstrip("/")
        address = f"{base}/v1/services/{_COMPUTE_ENGINE}/skus"
        session = sdk.session(_with_jwt(self._cloud.account.credentials))
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
    # Also of a page that is not what it is documented to be.
    return (*sdk.failures(), OneboxError, ValueError, TypeError, AttributeError)


def _with_jwt(credentials: Any) -> Any:
    """Return credentials that sign for themselves, if they are a key that can."""
    signing = getattr(credentials, "with_always_use_jwt_access", None)
    return signing(True) if signing else credentials


def egress(region: str) -> float | None:
    """Return what a GB to the internet costs at most (source: see the module)."""
    return _EGRESS.get(region.partition("-")[0])


def _read(skus: Iterable[Any]) -> Iterator[tuple[_Key, float]]:
    for sku in skus:
        named = _named(str(sku.get("description", "")))
        if named is None:
            continue
        name, spot, part = named
        # An address is one everywhere, and its description says which usage it is.
        regions = [_GLOBAL] if part == "Address" else sku.get("serviceRegions", ())
        usage = sku.get("category", {}).get("usageType")
        if part != "Address" and usage != _USAGE[spot]:
            continue
        price = _price(sku, _UNITS[part])
        if price is not None:
            for region in regions:
                yield (name, str(region), spot, part), price


def _named(description: str) -> tuple[str, bool, str] | None:
    """Return what a description is about: a name, spot or not, and which part."""
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
        told = sku["pricingInfo"][-1]["pricingExpression"]
        # The last tier is what counts: a free first one may stand before it.
        price = told["tieredRates"][-1]["unitPrice"]
        amount = int(price.get("units", 0)) + int(price.get("nanos", 0)) / 1e9
    except (KeyError, IndexError, TypeError, ValueError):
        return None
    right = told.get("usageUnit") == unit and price.get("currencyCode") == "USD"
    return amount if right and amount > 0 else None
