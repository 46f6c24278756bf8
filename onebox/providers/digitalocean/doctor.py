"""Look for whatever would keep a box from coming up on DigitalOcean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from onebox import formatting
from onebox.errors import Gone, NotAllowed, OneboxError
from onebox.providers.base import Check, unknown
from onebox.providers.digitalocean import errors
from onebox.providers.digitalocean.client import Calls
from onebox.providers.digitalocean.instances import shape
from onebox.providers.digitalocean.machine_types import Catalogue
from onebox.providers.digitalocean.settings import Settings

# What a box's whole life asks of a token.
SCOPES = (
    "account:read",
    "droplet:create",
    "droplet:read",
    "droplet:update",
    "droplet:delete",
    "firewall:create",
    "firewall:read",
    "firewall:update",
    "firewall:delete",
    "image:create",
    "image:read",
    "image:update",
    "image:delete",
    "regions:read",
    "sizes:read",
    "snapshot:read",
    "snapshot:delete",
    "ssh_key:create",
    "ssh_key:read",
    "ssh_key:delete",
    "tag:create",
    "tag:read",
    "tag:delete",
)
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


def look(
    calls: Calls,
    catalogue: Catalogue,
    wishes: Settings,
    networks: Callable[[], Sequence[str]],
) -> list[Check]:
    """Return one line for each thing looked at; what raises becomes a line too."""
    found: list[Check] = []
    steps: tuple[tuple[str, Callable[[], Check]], ...] = (
        ("token", partial(_token, calls)),
        ("scopes", partial(_scopes, calls)),
        ("droplets", partial(_limit, calls)),
        ("region", partial(_region, calls, wishes)),
        ("sizes", partial(_sizes, catalogue, wishes)),
        ("deadline", partial(_deadline, wishes)),
        ("ssh from", partial(_reach, wishes, networks)),
    )
    for name, check in steps:
        try:
            found.append(check())
        except OneboxError as error:
            if name == "token":
                next_ = error.next or "inv doctor once more"
                found.append(Check(name, False, error.message, next_))
                break
            found.append(unknown(name, error))
    return found


def policy() -> str:
    """Return the scopes of the token, as the form for a custom one lists them."""
    return "\n".join(SCOPES)


def _token(calls: Calls) -> Check:
    try:
        account = calls.get("account")["account"]
    except NotAllowed as error:
        if "scope" not in error.message:
            raise
        return Check("token", None, "accepted, though it may not read the account")
    status = str(account.get("status"))
    team = str((account.get("team") or {}).get("name") or "")
    if status == "locked":
        said = str(account.get("status_message") or "no reason is given")
        return Check(
            "token",
            False,
            f"the account is locked: {said}",
            "https://cloud.digitalocean.com/support",
        )
    whose = f", team {team}" if team else ""
    return Check("token", True, f"accepted{whose}, account {status}")


def _scopes(calls: Calls) -> Check:
    missing = [
        errors.scope("GET", path)
        for path in _READS
        if not _may(partial(calls.get, path, per_page="1"))
    ]
    missing += [
        errors.scope("POST", path)
        for path in _WRITES
        # A request that says nothing can make nothing; it is refused as wrong
        # where it would have been allowed.
        if not _may(partial(calls.post, path, {}))
    ]
    # A droplet of this number there is not.
    if not _may(lambda: calls.delete("droplets/0")):
        missing.append(errors.scope("DELETE", "droplets/0"))
    if missing:
        return Check(
            "scopes",
            False,
            f"the token lacks {', '.join(sorted(set(missing)))}",
            f"a token with: {' '.join(SCOPES)}",
        )
    return Check("scopes", True, "it may read, make and remove what a box needs")


def _may(call: Callable[[], object]) -> bool:
    try:
        call()
    except NotAllowed:
        return False
    except OneboxError:
        return True
    return True


def _limit(calls: Calls) -> Check:
    used = int(calls.get("droplets", per_page="1")["meta"]["total"])
    try:
        limit = int(calls.get("account")["account"]["droplet_limit"])
    except (NotAllowed, Gone):
        return Check("droplets", None, f"{used} in use; the limit cannot be read")
    said = f"{used} of {limit} in use"
    if used >= limit:
        return Check(
            "droplets",
            False,
            said,
            "remove one (inv sweep shows yours), or ask DigitalOcean for more",
        )
    return Check("droplets", True, said)


def _region(calls: Calls, wishes: Settings) -> Check:
    known = {str(one["slug"]): one for one in calls.all("regions", "regions")}
    wrong = [
        at
        for at in wishes.all_regions
        if at not in known or not known[at].get("available")
    ]
    if wrong:
        there = sorted(at for at, one in known.items() if one.get("available"))
        return Check(
            "region",
            False,
            f"{', '.join(wrong)} takes no droplets",
            f"[digitalocean] region = one of: {', '.join(there)}",
        )
    return Check("region", True, ", ".join(wishes.all_regions))


def _sizes(catalogue: Catalogue, wishes: Settings) -> Check:
    here = [
        shape(one, None, "")
        for one in catalogue.all()
        if one.get("available")
        and set(wishes.all_regions) & set(one.get("regions") or [])
    ]
    if not here:
        return Check(
            "sizes",
            False,
            f"this account may have no size in {', '.join(wishes.all_regions)}",
            "another [digitalocean] region",
        )
    best = max(here, key=lambda size: (size.cpus, size.memory))
    return Check(
        "sizes",
        True,
        f"{len(here)}, up to {best.type} ({best.cpus} vCPU, "
        f"{formatting.byte_count(best.memory)}, {formatting.rate(best.price)})",
    )


def _deadline(wishes: Settings) -> Check:
    if wishes.destroy_token:
        return Check(
            "deadline", True, f"boxes end themselves, by {wishes.destroy_token}"
        )
    if wishes.accept_no_watchdog:
        return Check(
            "deadline",
            None,
            "a box that is powered off is billed on, until inv sweep",
            "inv sweep --print-cron",
        )
    return Check("deadline", False, NO_WATCHDOG, SAY_SO)


def _reach(wishes: Settings, networks: Callable[[], Sequence[str]]) -> Check:
    if wishes.open_to_world:
        return Check("ssh from", None, "the whole world, as allow_world_ssh says")
    return Check("ssh from", True, ", ".join(networks()))


NO_WATCHDOG = (
    "DigitalOcean bills a droplet that is powered off in full, so a box that nobody "
    "tears down costs on after its deadline"
)
SAY_SO = (
    "[digitalocean] destroy_token = the name of a variable with a token by which "
    "boxes end themselves, or accept_no_watchdog = true and inv sweep --print-cron"
)
