"""The Google Cloud project as the contract tests see it, without its API."""

from __future__ import annotations

import ipaddress
import json
import re
from typing import Any

from onebox.providers.base import Request
from tests.fakes.compute.operations import ROOT, fingerprint, now
from tests.fakes.compute.server import Server

_DEADLINE = re.compile(r'\\?"deadline\\?": ([0-9.]+)')
_ARMED = ("user-data", "startup-script")


class ComputeWorld:
    """The project, for one test; see `World`."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.here = "198.51.100.7"
        self.lost = 0

    def ssh_open_to(self, box: str, source: str) -> bool:
        """Take the first rule that fits, by priority; the default network's last."""
        tags = set(self._one(box)["tags"].get("items", ()))
        rules = sorted(
            self.server.account.firewalls.values(),
            # Of two of one priority that which denies counts.
            key=lambda rule: (int(rule["priority"]), "allowed" in rule),
        )
        for rule in rules:
            wanted = set(rule.get("targetTags", ()))
            if rule.get("disabled") or (wanted and not wanted & tags):
                continue
            if _within(source, rule["sourceRanges"]):
                return "allowed" in rule
        # That network lets everybody in, at the lowest priority.
        return True

    def boot_data(self, box: str) -> str:
        """Return the metadata that the box is armed by."""
        items = self._one(box)["metadata"]["items"]
        return json.dumps({i["key"]: i["value"] for i in items if i["key"] in _ARMED})

    def deadline_on(self, box: str) -> float | None:
        """Read it in what the box is armed by."""
        found = _DEADLINE.search(self.boot_data(box).replace("\\", ""))
        return float(found[1]) if found else None

    def mark(self, box: str, word: str) -> None:
        """There are no real disks."""

    def booted_from(self, box: str) -> str:
        """Look at what the boot disk was made of."""
        source = str(self._disk(box)["sourceImage"]).rpartition("/")[2]
        return source if source in self.server.account.images else ""

    def belongings(self, box: str) -> list[str]:
        """Return instance and disks; they have the same name."""
        instances = self.server.account.instances
        return [name for _, name in (*instances.all, *instances.disks) if name == box]

    def walls(self, owner: str) -> set[str]:
        """Return the rules whose description names the owner."""
        return {
            name
            for name, rule in self.server.account.firewalls.items()
            if owner in json.dumps(rule)
        }

    def packed(self) -> str:
        """Keep an image without labels."""
        name = "packer-1"
        self.server.account.images[name] = {
            "kind": "compute#image",
            "id": "77",
            "name": name,
            "selfLink": f"{ROOT}/global/images/{name}",
            "status": "READY",
            "creationTimestamp": now(),
            "diskSizeGb": "10",
            "archiveSizeBytes": str(1 << 30),
            "architecture": "X86_64",
            "labels": {},
            "labelFingerprint": fingerprint({}),
            "licenses": [],
        }
        return name

    def lose_next_answer(self) -> None:
        """Cut the connection once the instance is begun."""
        self.lost += 1
        self.server.fail("instances.insert", "cut-after")

    def refuse(self, request: Request) -> Request:
        """Remove all capacity, which the operation reports."""
        self.server.fail("instances.insert", "op:ZONE_RESOURCE_POOL_EXHAUSTED")
        return request

    def accept(self) -> None:
        """It was refused once."""

    def move(self) -> str:
        """Be somewhere else from now on."""
        self.here = "203.0.113.9"
        return self.here

    def open_to_all(self, box: str) -> None:
        """Let the world in above all other rules."""
        for rule in self.server.account.firewalls.values():
            if "allowed" in rule:
                rule["sourceRanges"] = ["0.0.0.0/0"]

    def take_off_walls(self, box: str) -> None:
        """Take off the tag that the rules are for."""
        self._one(box)["tags"] = {"items": []}

    def set_boot_data(self, box: str, boot_data: str) -> None:
        """Replace what the box is armed by."""
        new = json.loads(boot_data) if boot_data else {}
        for item in self._one(box)["metadata"]["items"]:
            if item["key"] in _ARMED:
                item["value"] = new.get(item["key"], "")

    def boot_plain(self, box: str) -> None:
        """Have the boot disk be made of a common image."""
        family = "projects/ubuntu-os-cloud/global/images/family/ubuntu-2404-lts-amd64"
        self._disk(box)["sourceImage"] = family

    def leave_behind(self, owner: str, box: str) -> None:
        """Leave a rule that does not say whose it is."""
        name = f"left-{box}"
        self.server.account.firewalls[name] = {
            "name": name,
            "description": f"for {owner}",
            "network": f"{ROOT}/global/networks/default",
            "priority": 1000,
            "allowed": [],
            "sourceRanges": ["10.0.0.0/8"],
        }

    def _one(self, box: str) -> Any:
        (one,) = [
            instance
            for (_, name), instance in self.server.account.instances.all.items()
            if name == box
        ]
        return one

    def _disk(self, box: str) -> Any:
        source = self._one(box)["disks"][0]["source"].rpartition("/")[2]
        disks = self.server.account.instances.disks.items()
        (disk,) = [disk for (_, name), disk in disks if name == source]
        return disk


def _within(source: str, networks: list[str]) -> bool:
    address = ipaddress.ip_address(source)
    return any(address in ipaddress.ip_network(network) for network in networks)
