"""
Write and read the firewalls that open a box's ssh port.

The name of a firewall holds the owner and the box, and the API refuses a second
firewall of the same name.
"""

from __future__ import annotations

from collections.abc import Sequence

from onebox.providers.digitalocean import metadata
from onebox.providers.digitalocean.client import Answer
from onebox.providers.kernel.clock import epoch_seconds
from onebox.providers.kernel.servers.api import FIREWALL, Resource

_ANYWHERE = {"addresses": ["0.0.0.0/0", "::/0"]}


def read_firewall(found: Answer) -> Resource:
    """
    Return a firewall of the API as a resource.

    The resource has no pairs if the firewall does not belong to onebox. A firewall of
    onebox has a name of onebox, and applies only to its box: it has the tag of that
    box, no other tag, and names no droplet.
    """
    parts = str(found.get("name", "")).split(".")
    carried = [str(word).lower() for word in found.get("tags") or []]
    ours = (
        len(parts) == 3
        and parts[0] == "onebox"
        and carried == [metadata.tag("box", parts[2])]
        and not found.get("droplet_ids")
    )
    return Resource(
        kind=FIREWALL,
        id=str(found["id"]),
        pairs={"owner": parts[1], "box": parts[2]} if ours else {},
        created=epoch_seconds(found.get("created_at")),
        raw=found,
    )


def rules(owner: str, box: str, networks: Sequence[str]) -> Answer:
    """Return the body of a call that creates or replaces the firewall of a box."""
    every = {"ports": "1-65535", "destinations": _ANYWHERE}
    return {
        "name": f"onebox.{owner}.{box}",
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


def open_networks(found: Answer) -> tuple[str, ...]:
    """
    Return the networks to which a firewall, *found*, opens ssh.

    Return () if the firewall opens anything other than ssh.
    """
    inbound = found.get("inbound_rules") or []
    if len(inbound) != 1:
        return ()
    [rule] = inbound
    sources = rule.get("sources") or {}
    others = [key for key, value in sources.items() if value and key != "addresses"]
    if rule.get("protocol") != "tcp" or rule.get("ports") != "22" or others:
        return ()
    return tuple(sources.get("addresses") or [])
