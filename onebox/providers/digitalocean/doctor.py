"""Check what onebox needs on DigitalOcean, for `inv doctor`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from onebox import formatting
from onebox.errors import Gone, NotAllowed, OneboxError
from onebox.providers.digitalocean import errors
from onebox.providers.digitalocean.client import Cloud
from onebox.providers.digitalocean.machine_types import MachineTypes, read_offer
from onebox.providers.digitalocean.policy import SCOPES
from onebox.providers.digitalocean.settings import DigitalOceanSettings
from onebox.providers.kernel import doctor
from onebox.providers.kernel.ssh_access import SSHAccess
from onebox.providers.values import Check

_READS = (
    "account/keys",
    "droplets",
    "firewalls",
    "images",
    "sizes",
    "regions",
    "tags",
)
_WRITES = ("account/keys", "droplets", "firewalls", "tags")


def checks(
    cloud: Cloud,
    machine_types: MachineTypes,
    settings: DigitalOceanSettings,
    access: SSHAccess,
    deadline: Callable[[], Check],
) -> list[Check]:
    """
    Run all checks, and return one line for each.

    Args:
        deadline: Returns the line that tells what ends the billing of a box.
    """
    return doctor.run(
        [("token", partial(_token, cloud))],
        [
            ("scopes", partial(_scopes, cloud)),
            ("droplets", partial(_limit, cloud)),
            ("region", partial(_region, cloud, settings)),
            ("sizes", partial(_sizes, machine_types, settings)),
            ("deadline", deadline),
            ("ssh", partial(doctor.ssh_line, access)),
        ],
    )


def _token(cloud: Cloud) -> Check:
    try:
        account = cloud.get("account")["account"]
    except NotAllowed as error:
        if "scope" not in error.message:
            raise
        return Check("token", None, "accepted, but it cannot read the account")
    status = str(account.get("status"))
    team = str((account.get("team") or {}).get("name") or "")
    if status == "locked":
        reason = str(account.get("status_message") or "no reason is given")
        return Check(
            "token",
            False,
            f"the account is locked: {reason}",
            "https://cloud.digitalocean.com/support",
        )
    of_team = f", team {team}" if team else ""
    return Check("token", True, f"accepted{of_team}, account {status}")


def _scopes(cloud: Cloud) -> Check:
    missing = [
        errors.scope("GET", path)
        for path in _READS
        if not _may(partial(cloud.get, path, per_page="1"))
    ]
    missing += [
        errors.scope("POST", path)
        for path in _WRITES
        # An empty request creates nothing. If the token has the scope, the API refuses
        # the request as invalid, and otherwise as not permitted.
        if not _may(partial(cloud.post, path, {}))
    ]
    # No droplet has the number 0, so this call deletes nothing.
    if not _may(lambda: cloud.delete("droplets/0")):
        missing.append(errors.scope("DELETE", "droplets/0"))
    if missing:
        return Check(
            "scopes",
            False,
            f"the token lacks {', '.join(sorted(set(missing)))}",
            f"a token with: {' '.join(SCOPES)}",
        )
    return Check("scopes", True, "all that a box needs")


def _may(call: Callable[[], object]) -> bool:
    try:
        call()
    except NotAllowed:
        return False
    except OneboxError:
        return True
    return True


def _limit(cloud: Cloud) -> Check:
    used = int(cloud.get("droplets", per_page="1")["meta"]["total"])
    try:
        limit = int(cloud.get("account")["account"]["droplet_limit"])
    except (NotAllowed, Gone):
        return Check("droplets", None, f"{used} in use; the limit cannot be read")
    detail = f"{used} of {limit} in use"
    if used >= limit:
        return Check(
            "droplets",
            False,
            detail,
            "delete one (inv cleanup lists yours), or ask DigitalOcean for more",
        )
    return Check("droplets", True, detail)


def _region(cloud: Cloud, settings: DigitalOceanSettings) -> Check:
    known = {str(one["slug"]): one for one in cloud.all("regions", "regions")}
    wrong = [
        at
        for at in settings.all_regions
        if at not in known or not known[at].get("available")
    ]
    if wrong:
        there = sorted(at for at, one in known.items() if one.get("available"))
        return Check(
            "region",
            False,
            f"{', '.join(wrong)} accepts no droplets",
            f"[digitalocean] region = one of: {', '.join(there)}",
        )
    return Check("region", True, ", ".join(settings.all_regions))


def _sizes(machine_types: MachineTypes, settings: DigitalOceanSettings) -> Check:
    here = [
        read_offer(one, None, "")
        for one in machine_types.all()
        if one.get("available")
        and set(settings.all_regions) & set(one.get("regions") or [])
    ]
    if not here:
        return Check(
            "sizes",
            False,
            "no size is available to this account in "
            f"{', '.join(settings.all_regions)}",
            "another [digitalocean] region",
        )
    best = max(here, key=lambda size: (size.cpus, size.memory))
    return Check(
        "sizes",
        True,
        f"{len(here)}, up to {best.type} ({best.cpus} vCPU, "
        f"{formatting.byte_count(best.memory)}, {formatting.rate(best.machine_price)})",
    )
