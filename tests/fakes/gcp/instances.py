"""The instances of a project and their disks: insert, start, stop, delete."""

from __future__ import annotations

import base64
import itertools
import time
from collections.abc import Mapping
from typing import Any, Protocol

from tests.fakes.gcp.operations import ROOT, Later, Operations, fingerprint, now
from tests.fakes.gcp.validation import InvalidError, check

_HOST_KEYS = itertools.count(1)


class Hardware(Protocol):
    """The machines behind the instances; without it, instances are only records."""

    def on(self, instance: dict[str, Any]) -> str:
        """Boot the machine of an instance; return its address."""

    def guest_attributes(self, name: str) -> Mapping[str, str]:
        """Return the guest attributes that a machine has published."""

    def warn(self, name: str) -> None:
        """Announce a preemption to a machine."""

    def shut(self, name: str) -> None:
        """Start the shutdown of a machine's system."""

    def off(self, name: str) -> None:
        """Wait until a machine is off; cut its power if that takes too long."""

    def save(self, name: str, image: str) -> None:
        """Copy a machine's disk to an image."""

    def remove(self, name: str) -> None:
        """Delete a machine and its disk."""


class Instances:
    """
    All instances of the project.

    Attributes:
        hardware: The machines behind the instances, None without machines.

        boot: The seconds after which the guest publishes its host key.

        lag: The seconds for which the API does not show a new instance.

        mutations: The number of instances that were created under each name.
    """

    def __init__(self, later: Later, operations: Operations) -> None:
        self._later, self._operations = later, operations
        self.all: dict[tuple[str, str], dict[str, Any]] = {}
        self.disks: dict[tuple[str, str], dict[str, Any]] = {}
        self.images: dict[str, dict[str, Any]] = {}
        self.guest: dict[str, dict[str, str]] = {}
        self.hidden: dict[str, float] = {}
        self.hardware: Hardware | None = None
        self.boot = 0.05
        self.lag = 0.0
        self.mutations: dict[str, int] = {}
        self._ids = itertools.count(5_000_000_000)

    def insert(
        self, zone: str, body: Mapping[str, Any], error: str, message: str
    ) -> dict[str, Any]:
        """Start to create an instance and its disk; return the operation."""
        check(zone, body, self.images)
        name = body["name"]
        disk = self._disk(zone, body)
        instance = self._new(zone, body, disk)
        place = {"zone": zone}

        def fail() -> None:
            self.all.pop((zone, name), None)
            if error != "INTERNAL_ERROR":
                self.disks.pop((zone, disk["name"]), None)
            else:
                disk["users"] = []

        def up() -> None:
            if error:
                fail()
            else:
                self._run(instance)

        self.all[zone, name] = instance
        self.disks[zone, disk["name"]] = disk
        self.mutations[name] = self.mutations.get(name, 0) + 1
        self.hidden[name] = time.monotonic() + self.lag
        self._later.after(self._operations.seconds / 2, lambda: _stage(instance))
        return self._operations.begin(
            "insert", instance, place, up, error=error, message=message
        )

    def start(self, instance: dict[str, Any], error: str) -> dict[str, Any]:
        """Start to start a stopped instance; return the operation."""
        place = _place(instance)
        if instance["status"] != "TERMINATED" or error:
            return self._operations.begin("start", instance, place, error=error)
        instance["status"] = "STAGING"
        return self._operations.begin(
            "start", instance, place, lambda: self._run(instance)
        )

    def stop(self, instance: dict[str, Any], kind: str = "stop") -> dict[str, Any]:
        """Start to stop an instance; *kind* is the type of the operation."""
        if instance["status"] == "TERMINATED":
            return self._operations.begin(kind, instance, _place(instance))
        instance["status"] = "STOPPING"
        if self.hardware:
            self.hardware.shut(instance["name"])

        def off() -> None:
            if self.hardware:
                self.hardware.off(instance["name"])
            stopped(instance)

        return self._operations.begin(kind, instance, _place(instance), off)

    def delete(self, instance: dict[str, Any], error: str = "") -> dict[str, Any]:
        """Start to delete an instance and its auto-delete disks."""
        zone, name = _place(instance)["zone"], instance["name"]

        def gone() -> None:
            self.all.pop((zone, name), None)
            self.guest.pop(name, None)
            if self.hardware:
                self.hardware.remove(name)
            for disk in instance["disks"]:
                key = (zone, disk["source"].rpartition("/")[2])
                if disk["autoDelete"]:
                    self.disks.pop(key, None)
                elif key in self.disks:
                    self.disks[key]["users"] = []

        if error:
            return self._operations.begin(
                "delete", instance, {"zone": zone}, error=error
            )
        instance["status"] = "STOPPING"
        return self._operations.begin("delete", instance, {"zone": zone}, gone)

    def shown(self, zone: str, name: str) -> dict[str, Any] | None:
        """Return an instance, None while the API does not show it."""
        found = self.all.get((zone, name))
        late = self.hidden.get(name, 0.0) > time.monotonic()
        return None if found is None or late else found

    def attributes(self, name: str) -> Mapping[str, str]:
        """Return the guest attributes that an instance has published."""
        return (
            self.hardware.guest_attributes(name)
            if self.hardware
            else self.guest.get(name, {})
        )

    def _run(self, instance: dict[str, Any]) -> None:
        instance.update(status="RUNNING", lastStartTimestamp=now())
        for interface in instance["networkInterfaces"]:
            for access in interface.get("accessConfigs", ()):
                access["natIP"] = f"203.0.113.{next(self._ids) % 250 + 1}"
        name = instance["name"]
        if self.hardware:
            address = self.hardware.on(instance)
            for interface in instance["networkInterfaces"]:
                for access in interface["accessConfigs"]:
                    access["natIP"] = address
            return
        wanted = {item["key"]: item["value"] for item in instance["metadata"]["items"]}
        if wanted.get("enable-guest-attributes") != "TRUE" or name in self.guest:
            return

        def publish() -> None:
            if (_place(instance)["zone"], name) in self.all:
                self.guest[name] = {"hostkeys/ssh-ed25519": host_key(next(_HOST_KEYS))}

        self._later.after(self.boot, publish)

    def _new(
        self, zone: str, body: Mapping[str, Any], disk: Mapping[str, Any]
    ) -> dict[str, Any]:
        number, name = next(self._ids), body["name"]
        interfaces = [dict(one) for one in body["networkInterfaces"]]
        for place, interface in enumerate(interfaces):
            interface["name"] = f"nic{place}"
            interface["networkIP"] = f"10.128.0.{number % 250 + 2}"
            configs = interface.get("accessConfigs", ())
            interface["accessConfigs"] = [dict(access) for access in configs]
        boot = body["disks"][0]
        return {
            **body,
            "kind": "compute#instance",
            "id": str(number),
            "creationTimestamp": now(),
            "status": "PROVISIONING",
            "zone": f"{ROOT}/zones/{zone}",
            "selfLink": f"{ROOT}/zones/{zone}/instances/{name}",
            "machineType": f"{ROOT}/{body['machineType']}",
            "labels": dict(body.get("labels", {})),
            "labelFingerprint": fingerprint(body.get("labels")),
            "metadata": {
                **body.get("metadata", {"items": []}),
                "fingerprint": fingerprint(body.get("metadata")),
            },
            "networkInterfaces": interfaces,
            "disks": [
                {
                    "boot": True,
                    "autoDelete": boot.get("autoDelete", False),
                    "source": disk["selfLink"],
                    "diskSizeGb": disk["sizeGb"],
                }
            ],
        }

    def _disk(self, zone: str, body: Mapping[str, Any]) -> dict[str, Any]:
        wanted = body["disks"][0]["initializeParams"]
        name = wanted.get("diskName", body["name"])
        if (zone, name) in self.disks:
            raise InvalidError(f"The disk 'zones/{zone}/disks/{name}' already exists")
        arm = "arm64" in wanted["sourceImage"]
        return {
            "kind": "compute#disk",
            "id": str(next(self._ids)),
            "name": name,
            "status": "READY",
            "zone": f"{ROOT}/zones/{zone}",
            "selfLink": f"{ROOT}/zones/{zone}/disks/{name}",
            "sizeGb": wanted.get("diskSizeGb", "10"),
            "type": f"{ROOT}/{wanted['diskType']}",
            # A disk does not inherit the labels of its instance.
            "labels": dict(wanted.get("labels", {})),
            "sourceImage": wanted["sourceImage"],
            "architecture": "ARM64" if arm else "X86_64",
            "users": [f"{ROOT}/zones/{zone}/instances/{body['name']}"],
        }


def stopped(instance: dict[str, Any]) -> None:
    """Set an instance to stopped; it has no address then."""
    instance.update(status="TERMINATED", lastStopTimestamp=now())
    for interface in instance["networkInterfaces"]:
        for access in interface["accessConfigs"]:
            access.pop("natIP", None)


def host_key(number: int) -> str:
    """Return an ed25519 public key as guest agents publish it: only the blob."""

    blob = b"\0\0\0\x0bssh-ed25519\0\0\0 " + number.to_bytes(32, "big")
    return base64.b64encode(blob).decode()


def _stage(instance: dict[str, Any]) -> None:
    if instance["status"] == "PROVISIONING":
        instance["status"] = "STAGING"


def _place(instance: Mapping[str, Any]) -> dict[str, str]:
    return {"zone": instance["zone"].rpartition("/")[2]}
