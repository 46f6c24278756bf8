"""
Let only this machine reach ssh, and take the rules away with the last box.

Google's default network lets the whole world in on port 22, at the lowest
priority; so an allowing rule closes nothing. Two rules on a network tag of the
owner's boxes do: one that lets the caller in, and a weaker one that keeps
everybody else out. Rules are free. They belong to an owner and a network, and
each box of that owner wears the tag.

A box may be made while another command removes the rules with what was the last
box until then. Both look again afterwards, and either puts the rules back.
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import json
import re
from collections.abc import Callable
from typing import Any

from onebox.errors import Gone, NotAllowed, ProviderError, UsageError
from onebox.providers.gcp import metadata
from onebox.providers.gcp.client import Cloud, Exists, last

ALLOW_PRIORITY = 800
DENY_PRIORITY = 900
# Whoever can reach a private address is inside already.
_INSIDE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
_WORLD = ("0.0.0.0/0",)


class Rules:
    """
    The firewall rules of one network.

    Args:
        address: Returns this machine's public address.
    """

    def __init__(self, cloud: Cloud, address: Callable[[], str]) -> None:
        self._cloud = cloud
        self._address = address
        self._sources: tuple[str, ...] = ()

    @property
    def network(self) -> str:
        """Return the network's address."""
        said = self._cloud.settings.network
        if "/" in said:
            return said
        return f"projects/{self._cloud.project}/global/networks/{said}"

    def tag(self, owner: str) -> str:
        """Return the network tag that an owner's boxes wear."""
        plain = re.fullmatch(r"[a-z0-9]{1,20}", owner)
        short = hashlib.sha256(owner.encode()).hexdigest()[:16]
        name = owner if plain else short
        if self._cloud.settings.network != "default":
            name += "-" + hashlib.sha256(self.network.encode()).hexdigest()[:6]
        return f"onebox-{name}"

    def open(self, owner: str, *, anew: bool = False) -> list[Any]:
        """
        Begin to bring the two rules to what they must be; return the operations.

        Args:
            anew: Ask again for this machine's address.
        """
        if anew:
            self._sources = ()
        present = self._present(owner)
        begun = []
        for rule in self._wanted(owner):
            found = present.get(rule["name"])
            if found is None:
                begun += self._change("insert", rule)
            elif not _agrees(found, rule):
                begun += self._change("patch", rule, firewall=rule["name"])
        return begun

    def wait(self, begun: list[Any]) -> None:
        """Wait until rules that were begun are in force."""
        for operation in begun:
            self._cloud.wait(operation, "opening ssh for this machine")

    def close(self, owner: str) -> None:
        """Remove the rules if the owner has no box any more."""
        if any_box(self._cloud, owner):
            return
        for name in self._present(owner):
            try:
                self._cloud.do(
                    "firewalls", "delete", f"removing rule {name}", **self._at(name)
                )
            except Gone:
                continue
        if any_box(self._cloud, owner):
            self.wait(self.open(owner))

    def of_owner(self, owner: str) -> list[str]:
        """Return the names of the owner's rules, also those for other networks."""
        listed = self._cloud.list(
            "firewalls", "looking at firewall rules", **self._place()
        )
        return sorted(rule.name for rule in listed if _owner(rule) == owner)

    def remove_one(self, owner: str, name: str) -> None:
        """
        Remove one of the owner's rules; already gone is fine.

        Raises:
            NotAllowed: It is not this owner's; it was not touched.

            ProviderError: A box of the owner's may need it.
        """
        doing = f"removing rule {name}"
        found = self._cloud.list(
            "firewalls", doing, filter=f'name = "{name}"', **self._place()
        )
        for rule in found:
            if _owner(rule) != owner:
                raise NotAllowed(f"rule {name} is not this owner's; it stays")
            why = used_by(self._cloud, owner)
            if why:
                raise ProviderError(why)
            with contextlib.suppress(Gone):
                self._cloud.do("firewalls", "delete", doing, **self._at(name))
        if any_box(self._cloud, owner):
            # Another command has begun one meanwhile.
            self.wait(self.open(owner))

    def left(self, owner: str) -> list[str]:
        """Return the names of the owner's rules that there still are."""
        return list(self._present(owner))

    def _wanted(self, owner: str) -> list[dict[str, Any]]:
        tag = self.tag(owner)
        common = {
            "description": json.dumps({"onebox": 1, "owner": owner}),
            "network": self.network,
            "direction": "INGRESS",
            "target_tags": [tag],
            "disabled": False,
        }
        ssh = [{"I_p_protocol": "tcp", "ports": ["22"]}]
        return [
            {
                **common,
                "name": f"{tag}-allow",
                "priority": ALLOW_PRIORITY,
                "allowed": ssh,
                "source_ranges": list(self._from()),
            },
            {
                **common,
                "name": f"{tag}-deny",
                "priority": DENY_PRIORITY,
                "denied": ssh,
                "source_ranges": list(_WORLD),
            },
        ]

    def _from(self) -> tuple[str, ...]:
        """Return who may reach ssh. Raises UsageError if that cannot be known."""
        if not self._sources:
            settings = self._cloud.settings
            if settings.ssh_cidr:
                self._sources = (settings.ssh_cidr,)
            elif settings.private:
                self._sources = _INSIDE
            elif settings.jump:
                raise UsageError(
                    "ssh comes from the jump host, whose address is not known",
                    next='set [gcp] ssh_cidr = "the jump host\'s address/32", or '
                    "private = true",
                )
            else:
                self._sources = (str(ipaddress.ip_network(self._address())),)
        return self._sources

    def _present(self, owner: str) -> dict[str, Any]:
        tag = self.tag(owner)
        names = [f"{tag}-allow", f"{tag}-deny"]
        return {
            rule.name: rule
            for rule in self._cloud.list(
                "firewalls",
                "looking at firewall rules",
                filter=" OR ".join(f'(name = "{name}")' for name in names),
                **self._place(),
            )
            if rule.name in names
        }

    def _change(self, method: str, rule: dict[str, Any], **more: Any) -> list[Any]:
        doing = f"making rule {rule['name']}"
        fields = {"firewall_resource": rule, **more, **self._place()}
        try:
            begun = self._cloud.change("firewalls", method, doing, named=True, **fields)
        except Exists:
            # Another command of the same owner has just made it, from the same place.
            return []
        except Gone:
            if method == "insert":
                raise
            # Another command has just removed it, with its own last box.
            return self._change("insert", rule)
        return [begun]

    def _at(self, name: str) -> dict[str, str]:
        return {"firewall": name, **self._place()}

    def _place(self) -> dict[str, str]:
        """Return the project that the network is in, if it is shared by another."""
        shared = re.search(r"projects/([^/]+)/", self.network)
        return {"project": shared[1]} if shared else {}


def used_by(cloud: Cloud, owner: str) -> str:
    """Say which instance of the owner's needs the rules, "" if there is none."""
    found = cloud.everywhere(
        "instances", "looking for other boxes", filter=metadata.owned_by(owner)
    )
    name = next((str(one.name) for one in found), "")
    return f"{name} uses it" if name else ""


def any_box(cloud: Cloud, owner: str) -> bool:
    """Tell whether the owner has any instance, in any zone."""
    return bool(used_by(cloud, owner))


def _owner(rule: Any) -> str:
    """Return whose a rule is, as its description says; "" if it is none of ours."""
    with contextlib.suppress(ValueError):
        told = json.loads(rule.description)
        if isinstance(told, dict) and told.get("onebox"):
            return str(told.get("owner", ""))
    return ""


def _agrees(found: Any, wanted: dict[str, Any]) -> bool:
    ports = [
        (one.I_p_protocol, list(one.ports)) for one in (*found.allowed, *found.denied)
    ]
    return (
        ports == [("tcp", ["22"])]
        and bool(found.allowed) == ("allowed" in wanted)
        and list(found.source_ranges) == wanted["source_ranges"]
        and list(found.target_tags) == wanted["target_tags"]
        and found.priority == wanted["priority"]
        and last(found.network) == last(wanted["network"])
        and not found.disabled
    )
