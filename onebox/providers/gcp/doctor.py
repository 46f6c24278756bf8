"""Check what onebox needs on Google Cloud, for `inv doctor`."""

from __future__ import annotations

from functools import partial

from onebox.errors import Gone
from onebox.providers.gcp import reach, service_account
from onebox.providers.gcp.client import Cloud, last
from onebox.providers.gcp.errors import LOGIN
from onebox.providers.gcp.policy import PERMISSIONS
from onebox.providers.gcp.prices import Prices
from onebox.providers.kernel import doctor
from onebox.providers.kernel.ssh_access import SSHAccess
from onebox.providers.values import Check

# No instance has this name. It serves to ask which permissions the user would have on
# an instance.
_NO_INSTANCE = "onebox-doctor"
# These are Google's names for the quotas that boxes of all sizes count against.
_QUOTAS = ("CPUS", "PREEMPTIBLE_CPUS", "INSTANCES", "SSD_TOTAL_GB", "IN_USE_ADDRESSES")
_QUOTA_PAGE = "https://console.cloud.google.com/iam-admin/quotas"
_BILLING_API = (
    "https://console.cloud.google.com/apis/library/cloudbilling.googleapis.com"
)


def checks(cloud: Cloud, prices: Prices, access: SSHAccess) -> list[Check]:
    """Run all checks, and return the result of each."""
    regions = cloud.settings.all_regions
    identity = [("identity", partial(service_account.check, cloud))]
    return doctor.run(
        [("credentials", partial(_credentials, cloud))],
        [("project", partial(_project, cloud))],
        [("compute engine", partial(_api, cloud))],
        [
            ("permissions", partial(_permissions, cloud)),
            *(identity if cloud.settings.service_account else ()),
            *((f"quota {name}", partial(_quota, cloud, name)) for name in regions),
            ("prices", partial(_prices, cloud, prices)),
            *_ssh_steps(cloud, access),
        ],
    )


def _ssh_steps(cloud: Cloud, access: SSHAccess) -> list[doctor.Step]:
    """Return the checks of how ssh reaches a box."""
    if cloud.settings.reach != reach.IAP:
        return [("ssh", partial(doctor.ssh_line, access))]
    detail = (
        f"by Identity-Aware Proxy, from {reach.NETWORK} only; it needs "
        f"{reach.PERMISSION} (roles/iap.tunnelResourceAccessor)"
    )
    return [
        ("gcloud", reach.version),
        ("gcloud login", reach.login),
        ("ssh", lambda: Check("ssh", True, detail)),
    ]


def _credentials(cloud: Cloud) -> Check:
    account = cloud.account
    return doctor.credentials_line(
        "credentials", account.who, account.expires, cloud.clock(), LOGIN
    )


def _project(cloud: Cloud) -> Check:
    source = "onebox.toml" if cloud.settings.project else "the credentials"
    return Check("project", True, f"{cloud.project}, from {source}")


def _api(cloud: Cloud) -> Check:
    cloud.ask_named("projects", "get", "reading the project")
    endpoint = cloud.settings.endpoint or "compute.googleapis.com"
    return Check("compute engine", True, f"enabled, at {endpoint}")


def _permissions(cloud: Cloud) -> Check:
    needed = [name for name in PERMISSIONS if name.startswith("compute.instances.")]
    try:
        granted = cloud.ask(
            "instances",
            "test_iam_permissions",
            "asking for the permissions",
            zone=_zone(cloud),
            resource=_NO_INSTANCE,
            test_permissions_request_resource={"permissions": needed},
        ).permissions
    except Gone:
        detail = "unknown until a box exists: Google lists them only for its instance"
        return Check("permissions", None, detail)
    missing = [name for name in needed if name not in granted]
    if missing:
        advice = "grant roles/compute.instanceAdmin.v1, or the role of --policy"
        return Check("permissions", False, f"missing: {', '.join(missing)}", advice)
    return Check("permissions", True, f"all {len(needed)} on instances")


def _quota(cloud: Cloud, region: str) -> Check:
    found = cloud.ask_named("regions", "get", f"reading region {region}", region=region)
    quotas = {quota.metric: quota for quota in found.quotas}
    listed = [quotas[name] for name in _QUOTAS if name in quotas]
    used_up = [
        quota.metric
        for quota in listed
        # A project without a quota for spot instances has 0 PREEMPTIBLE_CPUS. Then spot
        # instances count against CPUS.
        if quota.usage >= quota.limit and quota.metric != "PREEMPTIBLE_CPUS"
    ]
    detail = ", ".join(f"{one.metric} {one.usage:g} of {one.limit:g}" for one in listed)
    return Check(
        f"quota {region}",
        not used_up,
        detail or "Google lists none",
        _QUOTA_PAGE if used_up else "",
    )


def _prices(cloud: Cloud, prices: Prices) -> Check:
    region = cloud.settings.all_regions[0]
    prices.load(["n2d"], [region])
    if prices.hourly("n2d-standard-4", region, False, 4, 16.0) is not None:
        return Check("prices", True, f"Google's catalogue has those of {region}")
    problem = prices.problem or f"the catalogue has none for {region}"
    return Check("prices", None, f"not known: {problem}", _BILLING_API)


def _zone(cloud: Cloud) -> str:
    settings = cloud.settings
    if settings.zones:
        return settings.zones[0]
    # The zones of the region are looked up, because not every region has a zone "a".
    doing = f"reading region {settings.region}"
    found = cloud.ask_named("regions", "get", doing, region=settings.region)
    return min(last(zone) for zone in found.zones)
