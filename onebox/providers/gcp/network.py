"""
Create and delete the firewall rules that open ssh to this machine only.

Google's default network has a rule of low priority that lets everyone reach port 22.
One more rule that allows this machine would not close the port to others. So onebox
creates two rules for the boxes with a network tag: one allows this machine, and one of
lower priority denies everyone else. Rules are free. There are two for each owner and
network, and every box of that owner carries the tag.

Another command may delete the rules with the owner's last box while a box is being
created. So both commands check afterwards, and create the rules again if needed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from onebox.errors import Gone, ProviderError
from onebox.providers.gcp import metadata, reach
from onebox.providers.gcp.client import Cloud, last
from onebox.providers.kernel.errors import Exists
from onebox.providers.kernel.metadata import check_same_owner
from onebox.providers.kernel.ssh_access import SSHAccess

ALLOW_PRIORITY = 800
DENY_PRIORITY = 900
_WORLD = ("0.0.0.0/0",)
# The values of the setting `reach`, each of which has rules of its own.
_WAYS = ("", reach.IAP)


class Rules:
    """
    The firewall rules of one network.

    Args:
        my_ip: Returns this machine's public address.
    """

    def __init__(self, cloud: Cloud, my_ip: Callable[[], str]) -> None:
        self._cloud = cloud
        settings = cloud.settings
        self.access = SSHAccess(
            ssh_cidr=settings.ssh_cidr, private=settings.private, my_ip=my_ip
        )

    @property
    def network(self) -> str:
        """Return the path of the network, in the form that the API expects."""
        name = self._cloud.settings.network
        if "/" in name:
            return name
        return f"projects/{self._cloud.project}/global/networks/{name}"

    def tag(self, owner: str, way: str = "") -> str:
        """
        Return the network tag of an owner's boxes.

        Args:
            way: How the boxes are reached, as in the setting `reach`. Each way has a
                tag and rules of its own.
        """
        plain = re.fullmatch(r"[a-z0-9]{1,20}", owner)
        short = hashlib.sha256(owner.encode()).hexdigest()[:16]
        name = owner if plain else short
        if self._cloud.settings.network != "default":
            name += "-" + hashlib.sha256(self.network.encode()).hexdigest()[:6]
        return f"onebox-{name}-{way}" if way else f"onebox-{name}"

    def open(self, owner: str, way: str = "", *, refresh: bool = False) -> list[Any]:
        """
        Begin to create or correct the two rules; return the operations to wait for.

        Args:
            way: How the boxes are reached; see `tag`.

            refresh: Whether to look up this machine's address again.

        Raises:
            UsageError: This machine's address is not certain.
        """
        networks: Sequence[str] = (reach.NETWORK,)
        if way != reach.IAP:
            networks = self.access.networks(refresh=refresh)
        present = self._present(owner)
        begun = []
        for rule in self._expected(owner, way, networks):
            found = present.get(rule["name"])
            if found is None:
                begun += self._change("insert", rule)
            elif not _agrees(found, rule):
                begun += self._change("patch", rule, firewall=rule["name"])
        return begun

    def wait(self, begun: list[Any]) -> None:
        """Wait until the operations that `open` returned are done."""
        for operation in begun:
            self._cloud.wait(operation, "opening ssh for this machine")

    def close(self, owner: str) -> None:
        """Delete the owner's firewall rules if the owner has no box."""
        if used_by(self._cloud, owner):
            return
        names = list(self._present(owner))
        for name in names:
            self._delete(name)
        if used_by(self._cloud, owner):
            self._open_again(owner, names)

    def of_owner(self, owner: str) -> list[str]:
        """Return the names of the owner's rules, in all networks."""
        listed = self._cloud.list(
            "firewalls", "looking at firewall rules", **self._place()
        )
        return sorted(rule.name for rule in listed if _owner(rule) == owner)

    def remove_one(self, owner: str, name: str) -> None:
        """
        Delete one of the owner's rules; a rule that is gone is no error.

        Raises:
            NotAllowed: The rule belongs to another owner; it was not touched.

            ProviderError: The owner has a box, which may need the rule.
        """
        found = self._cloud.list(
            "firewalls",
            f"looking at rule {name}",
            filter=f'name = "{name}"',
            **self._place(),
        )
        for rule in found:
            check_same_owner(f"rule {name}", _owner(rule), owner)
            why = used_by(self._cloud, owner)
            if why:
                raise ProviderError(why)
            self._delete(name)
        if used_by(self._cloud, owner):
            # Another command has begun to create a box meanwhile, which needs the
            # rules.
            self._open_again(owner, [name])

    def names(self, owner: str) -> list[str]:
        """Return the names of the owner's rules that exist in this network."""
        return list(self._present(owner))

    def _open_again(self, owner: str, names: Sequence[str]) -> None:
        """Create the rules again to which deleted rules with these *names* belonged."""
        for way in _WAYS:
            if set(names) & set(self._names(owner, way)):
                self.wait(self.open(owner, way))

    def _names(self, owner: str, way: str) -> list[str]:
        return [f"{self.tag(owner, way)}-{word}" for word in ("allow", "deny")]

    def _expected(
        self, owner: str, way: str, networks: Sequence[str]
    ) -> list[dict[str, Any]]:
        """Return the two rules, in the form that the API expects."""
        tag = self.tag(owner, way)
        allow, deny = self._names(owner, way)
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
                "name": allow,
                "priority": ALLOW_PRIORITY,
                "allowed": ssh,
                "source_ranges": list(networks),
            },
            {
                **common,
                "name": deny,
                "priority": DENY_PRIORITY,
                "denied": ssh,
                "source_ranges": list(_WORLD),
            },
        ]

    def _present(self, owner: str) -> dict[str, Any]:
        names = [name for way in _WAYS for name in self._names(owner, way)]
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
        doing = f"creating rule {rule['name']}"
        fields = {"firewall_resource": rule, **more, **self._place()}
        try:
            begun = self._cloud.change("firewalls", method, doing, named=True, **fields)
        except Exists:
            # Another command of this owner has just created the rule, and allows this
            # machine too.
            return []
        except Gone:
            if method == "insert":
                raise
            # Another command has just deleted the rule, together with the box that it
            # removed.
            return self._change("insert", rule)
        return [begun]

    def _delete(self, name: str) -> None:
        doing = f"removing rule {name}"
        with contextlib.suppress(Gone):
            self._cloud.do("firewalls", "delete", doing, firewall=name, **self._place())

    def _place(self) -> dict[str, str]:
        """
        Return the request field `project` for the project that owns the network.

        Return {} if the path of the network names no project.
        """
        shared = re.search(r"projects/([^/]+)/", self.network)
        return {"project": shared[1]} if shared else {}


def used_by(cloud: Cloud, owner: str) -> str:
    """Return the reason why the owner's rules must stay, "" if the owner has no box."""
    found = cloud.everywhere(
        "instances", "looking for other boxes", filter=metadata.owner_filter(owner)
    )
    name = next((str(one.name) for one in found), "")
    return f"{name} uses it" if name else ""


def _owner(rule: Any) -> str:
    """Return the owner in a rule's description, "" if the rule is not from onebox."""
    with contextlib.suppress(ValueError):
        record = json.loads(rule.description)
        if isinstance(record, dict) and record.get("onebox"):
            return str(record.get("owner", ""))
    return ""


def _agrees(found: Any, expected: dict[str, Any]) -> bool:
    """Return whether an existing rule is as expected, so that it needs no change."""
    ports = [
        (one.I_p_protocol, list(one.ports)) for one in (*found.allowed, *found.denied)
    ]
    return (
        ports == [("tcp", ["22"])]
        and bool(found.allowed) == ("allowed" in expected)
        and list(found.source_ranges) == expected["source_ranges"]
        and list(found.target_tags) == expected["target_tags"]
        and found.priority == expected["priority"]
        and last(found.network) == last(expected["network"])
        and not found.disabled
    )
