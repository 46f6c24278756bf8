"""Turn DigitalOcean's error responses into errors of onebox, by a table of rules."""

from __future__ import annotations

from onebox.errors import (
    Gone,
    NoCapacity,
    NotAllowed,
    OneboxError,
    ProviderError,
    QuotaExceeded,
    Unsuitable,
    UsageError,
)
from onebox.providers.kernel.errors import Exists, Pending, Refusal, Rule, explain

TOKEN = "DIGITALOCEAN_ACCESS_TOKEN"  # noqa: S105 - a variable's name

# This is the `limit` of a QuotaExceeded error if the account may have no more droplets.
# That limit covers all sizes.
ACCOUNT = "droplets"

_KINDS = {
    "droplets": "droplet",
    "firewalls": "firewall",
    "images": "image",
    "snapshots": "snapshot",
    "tags": "tag",
    "volumes": "block_storage",
    "account": "account",
    "sizes": "sizes",
    "regions": "regions",
}
_VERBS = {"GET": "read", "POST": "create", "PUT": "update", "DELETE": "delete"}


class UnknownKey(ProviderError):
    """The call names an ssh key that is not in the account."""


class Already(Pending):
    """The droplet is in the requested state already."""


_OWN = "DigitalOcean: {message} ({code})"
_RULES = (
    Rule(
        NotAllowed,
        f"the token is not accepted; {_OWN}",
        status=(401,),
        next=f"set {TOKEN} to a valid token, then inv doctor",
    ),
    Rule(Exists, "{call} exists already; " + _OWN, status=(409,)),
    Rule(Pending, _OWN, pattern="pending (event|action)"),
    Rule(Exists, _OWN, pattern="already in use"),
    Rule(UnknownKey, _OWN, pattern="key identifiers"),
    Rule(Already, _OWN, pattern="already powered"),
    Rule(
        QuotaExceeded,
        f"the limit of the account is reached; {_OWN}",
        pattern="limit",
        next="inv cleanup lists your boxes; request a higher limit: "
        "https://cloud.digitalocean.com/account/team/droplet_limit_increase",
        limit=ACCOUNT,
    ),
    Rule(
        QuotaExceeded,
        f"this size is restricted for the account; {_OWN}",
        pattern="restricted",
        next="another --vm, or ask DigitalOcean to unlock the size",
    ),
    Rule(
        Unsuitable,
        f"the disk of this size is too small for the image; {_OWN}",
        pattern="disk",
        next="a larger --vm",
    ),
    Rule(
        UsageError,
        f"the name is reserved by DigitalOcean; {_OWN}",
        pattern="reserved",
        next="another --name, or [project] name",
    ),
    # This rule comes before the rule for NoCapacity, because "The image is not
    # available in this region" is no lack of capacity.
    Rule(ProviderError, _OWN, pattern="image"),
    Rule(NoCapacity, _OWN, pattern="available|capacity", cause="no capacity"),
    Rule(ProviderError, _OWN),
)


def explain_refusal(refusal: Refusal) -> OneboxError:
    """Return the error of onebox for an error response of the API."""
    method, _, path = refusal.call.partition(" ")
    if refusal.status == 404:
        kind, _, name = path.partition("/")
        return Gone(f"{kind} {name.rpartition('/')[2] or kind} does not exist")
    if refusal.status == 403:
        return NotAllowed(
            f"the token lacks the scope {scope(method, path)}; "
            f"DigitalOcean: {refusal.message} ({refusal.code})",
            next="create a token with that scope (inv doctor lists them all), and set "
            f"{TOKEN}",
        )
    return explain(_RULES, refusal)


def scope(method: str, path: str) -> str:
    """Return the scope that a token needs for a call, such as "droplet:create"."""
    parts = path.split("/")
    kind, verb = _KINDS.get(parts[0], parts[0]), _VERBS.get(method, "read")
    if parts[:2] == ["account", "keys"]:
        kind = "ssh_key"
    if parts[-1] == "actions" and method == "POST":
        verb = "update"
    return f"{kind}:{verb}"
