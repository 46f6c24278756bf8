"""The Google Cloud project as the provider contract sees it."""

from __future__ import annotations

import json
from typing import Any

from onebox.providers.values import Request
from tests.fakes.gcp.operations import ROOT, fingerprint, now
from tests.fakes.gcp.server import Server
from tests.fakes.world import CloudWorld, deadline_in, is_within

_BOOT_PROGRAMS = ("user-data", "startup-script")


class GCPWorld(CloudWorld):
    """The project's resources, read from the fake."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self.server = server

    def ssh_open_to(self, box: str, source: str) -> bool:
        """
        Apply the first matching rule by priority, as Compute Engine does.

        Without a match the address has access: the default network has a rule of
        the lowest priority that allows ssh from everywhere.
        """
        tags = set(self._instance(box)["tags"].get("items", ()))
        rules = sorted(
            self.server.account.firewalls.values(),
            # At equal priority a rule that denies wins.
            key=lambda rule: (int(rule["priority"]), "allowed" in rule),
        )
        for rule in rules:
            targets = set(rule.get("targetTags", ()))
            if rule.get("disabled") or (targets and not targets & tags):
                continue
            if is_within(source, rule["sourceRanges"]):
                return "allowed" in rule
        return True

    def boot_data(self, box: str) -> str:
        """Return the metadata items that hold the boot program, as JSON."""
        items = self._instance(box)["metadata"]["items"]
        return json.dumps(
            {item["key"]: item["value"] for item in items if _is_boot_program(item)}
        )

    def deadline_on(self, box: str) -> float | None:
        """Return the deadline in the boot program."""
        return deadline_in(self.boot_data(box))

    def image_on_disk(self, box: str) -> str:
        """Return the source image of the boot disk."""
        source = str(self._disk(box)["sourceImage"]).rpartition("/")[2]
        return source if source in self.server.account.images else ""

    def objects_of(self, box: str) -> list[str]:
        """Return instance and disk: both have the name of the box."""
        instances = self.server.account.instances
        return [name for _, name in (*instances.all, *instances.disks) if name == box]

    def firewalls_of(self, owner: str) -> set[str]:
        """Return the rules that contain the owner."""
        return {
            name
            for name, rule in self.server.account.firewalls.items()
            if owner in json.dumps(rule)
        }

    def identity_of(self, box: str) -> str:
        """Return the email of the service account."""
        found = self._instance(box).get("serviceAccounts", ())
        return "".join(str(one["email"]) for one in found)

    def set_identity(self, box: str, identity: str) -> None:
        """Replace the service account, as a stopped instance can be changed."""
        scopes = ["https://www.googleapis.com/auth/cloud-platform"]
        account = {"email": identity, "scopes": scopes}
        self._instance(box)["serviceAccounts"] = [account] if identity else []

    def build_with_packer(self) -> str:
        """Add an image without labels."""
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

    def cut_after_next_create(self) -> None:
        """Cut the connection after the next insert."""
        self.server.fail("instances.insert", "cut-after")

    def refuse_creates(self, request: Request) -> Request:
        """Let the next insert's operation fail for lack of capacity."""
        self.server.fail("instances.insert", "op:ZONE_RESOURCE_POOL_EXHAUSTED")
        return request

    def accept_creates(self) -> None:
        """Do nothing: only one insert fails."""

    def open_ssh_to_everyone(self, box: str) -> None:
        """Open every rule that allows something to all addresses."""
        for rule in self.server.account.firewalls.values():
            if "allowed" in rule:
                rule["sourceRanges"] = ["0.0.0.0/0"]

    def detach_firewalls(self, box: str) -> None:
        """Remove the network tag to which the rules apply."""
        self._instance(box)["tags"] = {"items": []}

    def set_boot_data(self, box: str, boot_data: str) -> None:
        """Replace the boot program."""
        values = json.loads(boot_data) if boot_data else {}
        for item in self._instance(box)["metadata"]["items"]:
            if _is_boot_program(item):
                item["value"] = values.get(item["key"], "")

    def put_base_on_disk(self, box: str) -> None:
        """Replace the source image of the boot disk by Ubuntu's."""
        family = "projects/ubuntu-os-cloud/global/images/family/ubuntu-2404-lts-amd64"
        self._disk(box)["sourceImage"] = family

    def leave_partial_create(self, owner: str, box: str) -> None:
        """Leave a rule without the description that names its owner to onebox."""
        name = f"left-{box}"
        self.server.account.firewalls[name] = {
            "name": name,
            "description": f"for {owner}",
            "network": f"{ROOT}/global/networks/default",
            "priority": 1000,
            "allowed": [],
            "sourceRanges": ["10.0.0.0/8"],
        }

    def _instance(self, box: str) -> Any:
        instances = self.server.account.instances.all.items()
        (instance,) = [instance for (_, name), instance in instances if name == box]
        return instance

    def _disk(self, box: str) -> Any:
        source = self._instance(box)["disks"][0]["source"].rpartition("/")[2]
        disks = self.server.account.instances.disks.items()
        (disk,) = [disk for (_, name), disk in disks if name == source]
        return disk


def _is_boot_program(item: Any) -> bool:
    return item["key"] in _BOOT_PROGRAMS
