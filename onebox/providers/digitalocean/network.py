"""
Let nobody but the caller reach a box's ssh port.

Each box has a firewall of its own, which is there before the box and goes with
it: so boxes with other settings, or at the same moment, never share a rule. Its
name is the owner's and the box's; the API refuses a second one of that name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress

from onebox.errors import Gone, NotAllowed, ProviderError
from onebox.providers.base import FreeThing
from onebox.providers.digitalocean import metadata, tag_api
from onebox.providers.digitalocean.client import Answer, Calls
from onebox.providers.digitalocean.errors import Conflict
from onebox.providers.digitalocean.instances import moment

_ANYWHERE = {"addresses": ["0.0.0.0/0", "::/0"]}
# A firewall without a box is older than this only if a crash has left it.
STALE_SECONDS = 3600.0


def ensure(calls: Calls, owner: str, box: str, cidr: str) -> bool:
    """
    Have the box's firewall let in *cidr* and nobody else.

    Returns whether anything had to change.
    """
    found = of_box(calls, box)
    if not found:
        tag_api.ensure(calls, metadata.tag("box", box))
        try:
            calls.post("firewalls", _rules(owner, box, cidr), again=True)
            return True
        except Conflict:
            found = of_box(calls, box)
    for double in found[1:]:
        _delete(calls, double)
    if found and not _lets_in(found[0], cidr):
        calls.put(f"firewalls/{found[0]['id']}", _rules(owner, box, cidr))
        return True
    return False


def of_box(calls: Calls, box: str) -> list[Answer]:
    """Return the firewall that was made for this box, if it is there; or doubles."""
    return [
        one
        for one in calls.all("firewalls", "firewalls")
        if _is_ours(one) and one["name"].endswith(f".{box}")
    ]


def remove(calls: Calls, box: str) -> None:
    """Remove the box's firewall; already gone is fine."""
    for one in of_box(calls, box):
        _delete(calls, one)


def remove_stale(
    calls: Calls, owner: str, boxes: Callable[[], Collection[str]]
) -> None:
    """
    Remove the firewalls that a crash has left before there was a box.

    Args:
        boxes: Tells the ids of the owner's boxes, which keep theirs.
    """
    old = [
        one
        for one in calls.all("firewalls", "firewalls")
        if _is_ours(one) and _owner(one) == owner and _age(calls, one) > STALE_SECONDS
    ]
    # Most of the time there are none, and nobody need be asked.
    live = boxes() if old else ()
    for one in old:
        if _box(one) not in live:
            _delete(calls, one)


def of_owner(
    calls: Calls, owner: str, live: Collection[str], gone: Collection[str]
) -> list[FreeThing]:
    """
    Return the owner's firewalls, each with the reason for which it has to stay.

    Args:
        live: The ids of the owner's boxes.

        gone: The ids of boxes that will certainly not be made any more.
    """
    found = []
    for one in calls.all("firewalls", "firewalls"):
        if not _is_ours(one) or _owner(one) != owner:
            continue
        box, why = _box(one), ""
        if box in live:
            why = f"{box} uses it"
        elif box not in gone and _age(calls, one) <= STALE_SECONDS:
            why = f"{box} may be on its way; not so an hour after it was made"
        found.append(FreeThing("firewall", str(one["id"]), why=why))
    return found


def remove_one(calls: Calls, owner: str, id: str, live: Collection[str]) -> None:
    """
    Remove a firewall of the owner's that no box needs; already gone is fine.

    Raises:
        NotAllowed: It is not the owner's, or not only for a box.

        ProviderError: A box needs it.
    """
    try:
        found = calls.get(f"firewalls/{id}")["firewall"]
    except Gone:
        return
    if not _is_ours(found) or _owner(found) != owner:
        raise NotAllowed(f"firewall {id} is not this owner's; it was not touched")
    box = _box(found)
    if box in live:
        raise ProviderError(f"{box} uses it")
    _delete(calls, found)
    tag_api.forget(calls, [metadata.tag("box", box)])


def _box(found: Answer) -> str:
    return str(found["name"]).rpartition(".")[2]


def _owner(found: Answer) -> str:
    return str(found["name"]).split(".")[1]


def _age(calls: Calls, found: Answer) -> float:
    # One whose age is not told is not old.
    made = moment(found.get("created_at"))
    return calls.time() - made if made else 0.0


def _delete(calls: Calls, found: Answer) -> None:
    with suppress(Gone):
        calls.delete(f"firewalls/{found['id']}")


def _is_ours(found: Answer) -> bool:
    """Tell whether it is named as ours are, and is for that box's tag alone."""
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


def _rules(owner: str, box: str, cidr: str) -> Answer:
    every = {"ports": "1-65535", "destinations": _ANYWHERE}
    return {
        "name": _name(owner, box),
        "inbound_rules": [
            {"protocol": "tcp", "ports": "22", "sources": {"addresses": [cidr]}}
        ],
        "outbound_rules": [
            {"protocol": "tcp", **every},
            {"protocol": "udp", **every},
            {"protocol": "icmp", "ports": "0", "destinations": _ANYWHERE},
        ],
        "droplet_ids": [],
        "tags": [metadata.tag("box", box)],
    }


def _lets_in(found: Answer, cidr: str) -> bool:
    rules = found.get("inbound_rules") or []
    if len(rules) != 1:
        return False
    [rule] = rules
    sources = rule.get("sources") or {}
    others = [key for key, value in sources.items() if value and key != "addresses"]
    return (
        rule.get("protocol") == "tcp"
        and rule.get("ports") == "22"
        and sources.get("addresses") == [cidr]
        and not others
    )
