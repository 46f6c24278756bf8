"""
Create and delete the firewall that opens a box's ssh port to this machine only.

Each box has its own firewall, so boxes with different settings never share a rule. It
is created before the box and deleted after it. Its name holds the owner and the box,
and the API refuses a second firewall of the same name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress

from onebox.errors import Gone, ProviderError
from onebox.providers.digitalocean import metadata, tag_api
from onebox.providers.digitalocean.client import Answer, Cloud
from onebox.providers.kernel.clock import epoch_seconds
from onebox.providers.kernel.errors import Exists
from onebox.providers.kernel.metadata import check_same_owner
from onebox.providers.values import FreeObject

_ANYWHERE = {"addresses": ["0.0.0.0/0", "::/0"]}
# The creation of a box takes less than an hour. So a firewall that is older and has no
# box is left over from a crash.
STALE_SECONDS = 3600.0


def ensure(cloud: Cloud, owner: str, box: str, networks: Sequence[str]) -> bool:
    """Open the box's ssh port to these networks only; return whether a rule changed."""
    found = of_box(cloud, box)
    if not found:
        tag_api.ensure(cloud, metadata.tag("box", box))
        try:
            cloud.post("firewalls", _rules(owner, box, networks), again=True)
            return True
        except Exists:
            found = of_box(cloud, box)
    for double in found[1:]:
        _delete(cloud, double)
    if found and not _opens_only(found[0], networks):
        cloud.put(f"firewalls/{found[0]['id']}", _rules(owner, box, networks))
        return True
    return False


def of_box(cloud: Cloud, box: str) -> list[Answer]:
    """Return the firewalls of this box; a lost response can cause more than one."""
    return [
        one
        for one in cloud.all("firewalls", "firewalls")
        if _is_ours(one) and one["name"].endswith(f".{box}")
    ]


def remove(cloud: Cloud, box: str) -> None:
    """Delete the box's firewall; it is no error if it is gone."""
    for one in of_box(cloud, box):
        _delete(cloud, one)


def remove_stale(
    cloud: Cloud, owner: str, boxes: Callable[[], Collection[str]]
) -> None:
    """
    Delete the owner's old firewalls without a box, which a crash has left.

    Args:
        boxes: Returns the ids of the owner's boxes, whose firewalls stay.
    """
    old = [
        one
        for one in cloud.all("firewalls", "firewalls")
        if _is_ours(one) and _owner(one) == owner and _age(cloud, one) > STALE_SECONDS
    ]
    # The boxes are listed only if there is an old firewall. Usually there is none,
    # which saves an API call.
    live = boxes() if old else ()
    for one in old:
        if _box(one) not in live:
            _delete(cloud, one)


def of_owner(
    cloud: Cloud, owner: str, live: Collection[str], gone: Collection[str]
) -> list[FreeObject]:
    """
    Return the owner's firewalls, each with the reason why it must stay, or "".

    Args:
        live: The ids of the owner's boxes.

        gone: The ids of boxes that are certainly not being created now.
    """
    found = []
    for one in cloud.all("firewalls", "firewalls"):
        if not _is_ours(one) or _owner(one) != owner:
            continue
        box, why = _box(one), ""
        if box in live:
            why = f"{box} uses it"
        elif box not in gone and _age(cloud, one) <= STALE_SECONDS:
            why = f"{box} may still be created; after an hour, it is not"
        found.append(FreeObject("firewall", str(one["id"]), why=why))
    return found


def remove_one(cloud: Cloud, owner: str, id: str, live: Collection[str]) -> None:
    """
    Delete a firewall that no box needs; it is no error if it is gone.

    Raises:
        NotAllowed: The firewall belongs to another owner, or does not serve exactly one
            box of onebox.

        ProviderError: A box needs the firewall.
    """
    try:
        found = cloud.get(f"firewalls/{id}")["firewall"]
    except Gone:
        return
    check_same_owner(f"firewall {id}", _owner(found) if _is_ours(found) else "", owner)
    box = _box(found)
    if box in live:
        raise ProviderError(f"{box} uses it")
    _delete(cloud, found)
    tag_api.delete_unused(cloud, [metadata.tag("box", box)])


def _box(found: Answer) -> str:
    return str(found["name"]).rpartition(".")[2]


def _owner(found: Answer) -> str:
    return str(found["name"]).split(".")[1]


def _age(cloud: Cloud, found: Answer) -> float:
    # A firewall whose time of creation is unknown counts as new, so that it is kept.
    created = epoch_seconds(found.get("created_at"))
    return cloud.clock() - created if created else 0.0


def _delete(cloud: Cloud, found: Answer) -> None:
    with suppress(Gone):
        cloud.delete(f"firewalls/{found['id']}")


def _is_ours(found: Answer) -> bool:
    """
    Return whether a firewall has a name of onebox, and applies only to its box.

    It must have the tag of that box, no other tag, and name no droplet.
    """
    parts = str(found.get("name", "")).split(".")
    carried = [str(word).lower() for word in found.get("tags") or []]
    return (
        len(parts) == 3
        and parts[0] == "onebox"
        and carried == [metadata.tag("box", parts[2])]
        and not found.get("droplet_ids")
    )


def _name(owner: str, box: str) -> str:
    return f"onebox.{owner}.{box}"


def _rules(owner: str, box: str, networks: Sequence[str]) -> Answer:
    every = {"ports": "1-65535", "destinations": _ANYWHERE}
    return {
        "name": _name(owner, box),
        "inbound_rules": [
            {"protocol": "tcp", "ports": "22", "sources": {"addresses": [*networks]}}
        ],
        "outbound_rules": [
            {"protocol": "tcp", **every},
            {"protocol": "udp", **every},
            {"protocol": "icmp", "ports": "0", "destinations": _ANYWHERE},
        ],
        "droplet_ids": [],
        "tags": [metadata.tag("box", box)],
    }


def _opens_only(found: Answer, networks: Sequence[str]) -> bool:
    """Return whether a firewall opens ssh to these networks, and nothing else."""
    rules = found.get("inbound_rules") or []
    if len(rules) != 1:
        return False
    [rule] = rules
    sources = rule.get("sources") or {}
    others = [key for key, value in sources.items() if value and key != "addresses"]
    return (
        rule.get("protocol") == "tcp"
        and rule.get("ports") == "22"
        and sorted(sources.get("addresses") or []) == sorted(networks)
        and not others
    )
