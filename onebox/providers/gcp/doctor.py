"""Look for what would keep a box from coming up; never fail at it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from onebox.errors import Gone, OneboxError
from onebox.providers.base import Check, unknown
from onebox.providers.gcp.client import Cloud, last
from onebox.providers.gcp.policy import PERMISSIONS
from onebox.providers.gcp.prices import Prices

# What onebox would ask for on an instance that is not there.
_NOBODY = "onebox-doctor"
_SOON_SECONDS = 12 * 3600.0
# Quotas that a box of any size needs, by what they are called in a region.
_QUOTAS = ("CPUS", "PREEMPTIBLE_CPUS", "INSTANCES", "SSD_TOTAL_GB", "IN_USE_ADDRESSES")


def checks(
    cloud: Cloud, prices: Prices, clock: Callable[[], float] = time.time
) -> list[Check]:
    """Return a line on each thing that a box needs; the first that fails ends it."""
    found: list[Check] = []
    for name, look in (
        ("credentials", lambda: _credentials(cloud, clock())),
        ("project", lambda: _project(cloud)),
        ("compute engine", lambda: _api(cloud)),
    ):
        found += _guarded(name, look)
        if found[-1].ok is False:
            return found
    for name, look in (
        ("permissions", lambda: _permissions(cloud)),
        ("quota", lambda: _quotas(cloud)),
        ("prices", lambda: _prices(cloud, prices)),
        ("ssh", lambda: _ssh(cloud)),
    ):
        found += _asked(name, look)
    return found


def _asked(name: str, look: Callable[[], Iterator[Check]]) -> list[Check]:
    try:
        return list(look())
    except OneboxError as error:
        return [unknown(name, error)]


def _guarded(name: str, look: Callable[[], Iterator[Check]]) -> list[Check]:
    try:
        return list(look())
    except OneboxError as error:
        return [Check(name, False, error.message, error.next or "inv doctor later")]


def _credentials(cloud: Cloud, now: float) -> Iterator[Check]:
    account = cloud.account
    expires = account.expires
    if expires is None:
        yield Check("credentials", True, f"{account.who}, renewed as needed")
        return
    left = expires - now
    detail = f"{account.who}, for another {max(left, 0) / 3600:.1f} h"
    login = "gcloud auth application-default login"
    if left <= 0:
        yield Check("credentials", False, f"{account.who}: expired", login)
    else:
        yield Check("credentials", True if left > _SOON_SECONDS else None, detail)


def _project(cloud: Cloud) -> Iterator[Check]:
    source = "onebox.toml" if cloud.settings.project else "the credentials"
    yield Check("project", True, f"{cloud.project}, by {source}")


def _api(cloud: Cloud) -> Iterator[Check]:
    cloud.ask_named("projects", "get", "looking at the project")
    where = cloud.settings.endpoint or "compute.googleapis.com"
    yield Check("compute engine", True, f"enabled, at {where}")


def _permissions(cloud: Cloud) -> Iterator[Check]:
    zone = _zone(cloud)
    wanted = [name for name in PERMISSIONS if name.startswith("compute.instances.")]
    try:
        allowed = cloud.ask(
            "instances",
            "test_iam_permissions",
            "asking what is permitted",
            zone=zone,
            resource=_NOBODY,
            test_permissions_request_resource={"permissions": wanted},
        ).permissions
    except Gone:
        detail = "Google tells only of instances that exist: not known before a box is"
        yield Check("permissions", None, detail)
        return
    missing = [name for name in wanted if name not in allowed]
    if missing:
        advice = "have roles/compute.instanceAdmin.v1 granted, or what --policy prints"
        yield Check("permissions", False, f"missing: {', '.join(missing)}", advice)
    else:
        yield Check("permissions", True, f"all {len(wanted)} on instances")


def _quotas(cloud: Cloud) -> Iterator[Check]:
    for region in cloud.settings.all_regions:
        doing = f"looking at region {region}"
        found = cloud.ask_named("regions", "get", doing, region=region)
        known = {quota.metric: quota for quota in found.quotas}
        told, empty = [], []
        for name in _QUOTAS:
            if name in known:
                quota = known[name]
                told.append(f"{name} {quota.usage:g} of {quota.limit:g}")
                # Spot takes the other kind where there is none of its own.
                if quota.usage >= quota.limit and name != "PREEMPTIBLE_CPUS":
                    empty.append(name)
        more = "https://console.cloud.google.com/iam-admin/quotas" if empty else ""
        detail = ", ".join(told) or "Google names none"
        yield Check(f"quota {region}", not empty, detail, more)


def _prices(cloud: Cloud, prices: Prices) -> Iterator[Check]:
    region = cloud.settings.all_regions[0]
    prices.load(["n2d"], [region])
    if prices.hourly("n2d-standard-4", region, False, 4, 16.0) is not None:
        yield Check("prices", True, f"Google's catalogue has those of {region}")
        return
    problem = prices.problem or f"the catalogue has none for {region}"
    advice = "https://console.cloud.google.com/apis/library/cloudbilling.googleapis.com"
    yield Check("prices", None, f"not known: {problem}", advice)


def _ssh(cloud: Cloud) -> Iterator[Check]:
    settings = cloud.settings
    if settings.ssh_cidr:
        yield Check("ssh", True, f"from {settings.ssh_cidr}")
    elif settings.private:
        yield Check("ssh", True, "from private addresses; boxes have no public one")
    elif settings.jump:
        next_ = "set [gcp] ssh_cidr to the jump host's address"
        yield Check("ssh", False, "the jump host's address is not known", next_)
    else:
        yield Check("ssh", True, "from this machine's public address alone")


def _zone(cloud: Cloud) -> str:
    settings = cloud.settings
    if settings.zones:
        return settings.zones[0]
    # Not every region has a zone a.
    doing = f"looking at region {settings.region}"
    found = cloud.ask_named("regions", "get", doing, region=settings.region)
    return min(last(zone) for zone in found.zones)
