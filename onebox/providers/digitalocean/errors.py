"""Say in onebox's own errors what DigitalOcean's refusals mean: here and only here."""

from __future__ import annotations

from onebox.errors import (
    Gone,
    NoCapacity,
    NotAllowed,
    ProviderError,
    QuotaExceeded,
    Unclear,
    Unsuitable,
    UsageError,
)

TOKEN = "DIGITALOCEAN_ACCESS_TOKEN"  # noqa: S105, the name of the variable

# The limit that all sizes together count against.
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


class Failed(Unclear):
    """The API itself answered that it had failed: nothing more comes of the call."""


class UnknownKey(ProviderError):
    """An ssh key that the call names is not in the account (any more)."""


class Conflict(ProviderError):
    """There is already something of this name."""


class Pending(ProviderError):
    """The droplet or the image is busy with an earlier action."""


class Already(ProviderError):
    """The droplet is already as it was to become."""


def refusal(
    method: str, path: str, status: int, code: str, said: str
) -> ProviderError | UsageError:
    """
    Return the error that an answer stands for.

    Args:
        code: The API's own word for it, such as "unprocessable_entity".

        said: The API's own sentence.
    """
    own = f"DigitalOcean: {said or 'nothing more'} ({code or status})"
    if status == 401:
        return NotAllowed(
            f"the token is not accepted; {own}",
            next=f"set {TOKEN} to a token that is valid, then inv doctor",
        )
    if status == 403:
        return NotAllowed(
            f"the token may not do this, it wants the scope {scope(method, path)}; "
            f"{own}",
            next="make a token with that scope (inv doctor names them all), and set "
            f"{TOKEN}",
        )
    if status == 404:
        return Gone(f"{path.split('/')[0]} {path.rpartition('/')[2]} is not there")
    if status == 409:
        return Conflict(f"{path} is already there; {own}")
    return _unprocessable(said.lower(), own)


def scope(method: str, path: str) -> str:
    """Name the scope that a token must have for a call."""
    parts = path.split("/")
    kind, verb = _KINDS.get(parts[0], parts[0]), _VERBS.get(method, "read")
    if parts[:2] == ["account", "keys"]:
        kind = "ssh_key"
    if parts[-1] == "actions" and method == "POST":
        verb = "update"
    return f"{kind}:{verb}"


def _unprocessable(said: str, own: str) -> ProviderError | UsageError:
    if "pending event" in said or "pending action" in said:
        return Pending(own)
    if "already in use" in said:
        return Conflict(own)
    if "key identifiers" in said:
        return UnknownKey(own)
    if "already powered" in said:
        return Already(own)
    if "limit" in said:
        return QuotaExceeded(
            f"the account's limit is reached; {own}",
            next="inv sweep shows what is yours; a higher limit: "
            "https://cloud.digitalocean.com/account/team/droplet_limit_increase",
            limit=ACCOUNT,
        )
    if "restricted" in said:
        return QuotaExceeded(
            f"this account may not have that size yet; {own}",
            next="another --vm, or ask DigitalOcean to unlock the size",
        )
    if "disk" in said:
        return Unsuitable(
            f"the image needs a larger disk than this size has; {own}",
            next="a larger --vm",
        )
    if "reserved" in said:
        return UsageError(
            f"the name is one of DigitalOcean's own; {own}",
            next="another --name, or [project] name",
        )
    if "image" not in said and ("available" in said or "capacity" in said):
        return NoCapacity(own, cause="no capacity")
    return ProviderError(own)
