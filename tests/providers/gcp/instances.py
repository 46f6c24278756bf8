"""Instances, as Compute Engine keeps them: what is asked of them, how they live."""

from __future__ import annotations

import base64
import itertools
import re
import time
from collections.abc import Mapping
from typing import Any, Protocol

from . import kinds
from .clockwork import ROOT, Later, Operations, fingerprint, now

_LABEL_KEY = re.compile(r"[a-z][-_a-z0-9]{0,62}")
_LABEL_VALUE = re.compile(r"[-_a-z0-9]{0,63}")
_NETWORK_TAG = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_METADATA_KEY = re.compile(r"[a-zA-Z0-9-_]{1,128}")
_VALUE_BYTES, _ALL_BYTES = 256 << 10, 512 << 10
_HOST_KEYS = itertools.count(1)


class InvalidError(Exception):
    """What was asked for is well formed, and yet cannot be."""


class Hardware(Protocol):
    """What there may be behind the instances: machines that really run."""

    def on(self, instance: dict[str, Any]) -> str:
        """Switch one on; return its address."""

    def told(self, name: str) -> Mapping[str, str]:
        """Return its guest attributes."""

    def warn(self, name: str) -> None:
        """Tell it that it will be taken back."""

    def shut(self, name: str) -> None:
        """Ask its system to go down."""

    def off(self, name: str) -> None:
        """See it off."""

    def save(self, name: str, image: str) -> None:
        """Keep its disk as an image."""

    def remove(self, name: str) -> None:
        """Throw it away."""


class Instances:
    """
    All instances of the project.

    Attributes:
        hardware: Machines behind them; without, nothing but words.

        boot: How long the guest takes to publish its host key, in seconds.

        lag: For how long a new instance is not shown, in seconds.

        mutations: How often an instance was really made, by name.
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
        """Begin to make an instance and its disk."""
        _check(zone, body, self.images)
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
        """Begin to start a stopped instance."""
        place = _place(instance)
        if instance["status"] != "TERMINATED" or error:
            return self._operations.begin("start", instance, place, error=error)
        instance["status"] = "STAGING"
        return self._operations.begin(
            "start", instance, place, lambda: self._run(instance)
        )

    def stop(self, instance: dict[str, Any], kind: str = "stop") -> dict[str, Any]:
        """Begin to stop an instance, for the reason that *kind* is."""
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
        """Begin to delete an instance, with the disks that go with it."""
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
        """Return an instance as far as the API shows it yet."""
        found = self.all.get((zone, name))
        late = self.hidden.get(name, 0.0) > time.monotonic()
        return None if found is None or late else found

    def attributes(self, name: str) -> Mapping[str, str]:
        """Return the guest attributes that an instance has published."""
        return self.hardware.told(name) if self.hardware else self.guest.get(name, {})

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
            # It does not get those of the instance.
            "labels": dict(wanted.get("labels", {})),
            "sourceImage": wanted["sourceImage"],
            "architecture": "ARM64" if arm else "X86_64",
            "users": [f"{ROOT}/zones/{zone}/instances/{body['name']}"],
        }


def stopped(instance: dict[str, Any]) -> None:
    """Have an instance be off."""
    instance.update(status="TERMINATED", lastStopTimestamp=now())
    for interface in instance["networkInterfaces"]:
        for access in interface["accessConfigs"]:
            access.pop("natIP", None)


def host_key(number: int) -> str:
    """Return a public ed25519 key as guest agents publish it: the blob alone."""

    blob = b"\0\0\0\x0bssh-ed25519\0\0\0 " + number.to_bytes(32, "big")
    return base64.b64encode(blob).decode()


def _stage(instance: dict[str, Any]) -> None:
    if instance["status"] == "PROVISIONING":
        instance["status"] = "STAGING"


def _place(instance: Mapping[str, Any]) -> dict[str, str]:
    return {"zone": instance["zone"].rpartition("/")[2]}


def _check(zone: str, body: Mapping[str, Any], images: Mapping[str, Any]) -> None:
    """Refuse what the description allows and Compute Engine does not."""
    for check in (_check_machine, _check_scheduling, _check_names, _check_metadata):
        check(zone, body)
    _check_disk(zone, body, images)


def _check_machine(zone: str, body: Mapping[str, Any]) -> None:
    wanted = body["machineType"]
    known = {
        f"zones/{zone}/machineTypes/{m['name']}" for m in kinds.machine_types(zone)
    }
    if wanted not in known:
        raise InvalidError(
            "Invalid value for field 'resource.machineType': "
            f"'projects/test-project/{wanted}'. The referenced resource does not exist."
        )
    for account in body.get("serviceAccounts", ()):
        raise InvalidError(f"no box of ours has a service account: {account}")


def _check_scheduling(zone: str, body: Mapping[str, Any]) -> None:
    wanted = body["scheduling"]
    check_run_time(wanted)
    if wanted["provisioningModel"] == "SPOT":
        if wanted.get("automaticRestart", True):
            raise InvalidError("Scheduling must have automatic restart be false.")
        if wanted.get("onHostMaintenance", "MIGRATE") != "TERMINATE":
            raise InvalidError("Scheduling must have on host maintenance TERMINATE.")


def check_run_time(wanted: Mapping[str, Any]) -> None:
    """Refuse a time to run that Compute Engine would refuse."""
    if "maxRunDuration" in wanted:
        seconds = int(wanted["maxRunDuration"]["seconds"])
        if not 30 <= seconds <= 120 * 86400:
            raise InvalidError("maxRunDuration must be from 30 seconds to 120 days")
        if "instanceTerminationAction" not in wanted:
            raise InvalidError("a limited run time wants a termination action")


def check_labels(labels: Mapping[str, str]) -> None:
    """Refuse labels that are none."""
    if len(labels) > 64:
        raise InvalidError("more than 64 labels")
    for key, value in labels.items():
        if not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
            raise InvalidError(
                "Invalid value for field 'resource.labels': "
                f"'{key}={value}'. Label is not valid."
            )


def _check_names(zone: str, body: Mapping[str, Any]) -> None:
    check_labels(body.get("labels", {}))
    for tag in body.get("tags", {}).get("items", ()):
        if not _NETWORK_TAG.fullmatch(tag):
            raise InvalidError(f"Invalid value for field 'resource.tags': '{tag}'.")
    interface = body["networkInterfaces"][0]
    network = interface.get("network", "")
    if not network.endswith(("/networks/default", "/networks/lab")):
        raise InvalidError(
            f"Invalid value for field 'resource.networkInterfaces[0].network': "
            f"'{network}'. The referenced network resource cannot be found."
        )
    subnet = interface.get("subnetwork", "")
    region = zone.rpartition("-")[0]
    if subnet and f"/regions/{region}/subnetworks/" not in subnet:
        raise InvalidError(f"The subnetwork '{subnet}' is in another region.")


def _check_metadata(zone: str, body: Mapping[str, Any]) -> None:
    check_items(body.get("metadata", {}).get("items", ()))


def check_items(items: Any) -> None:
    """Refuse metadata that is too large, or said twice."""
    keys = [item["key"] for item in items]
    sizes = [len(item["value"].encode()) for item in items]
    if len(set(keys)) != len(keys):
        raise InvalidError("a metadata key stands there twice")
    if not all(_METADATA_KEY.fullmatch(key) for key in keys):
        raise InvalidError("a metadata key is not valid")
    if max(sizes, default=0) > _VALUE_BYTES or sum(sizes) > _ALL_BYTES:
        raise InvalidError("metadata is too large")


def _check_disk(
    zone: str, body: Mapping[str, Any], images: Mapping[str, Mapping[str, Any]]
) -> None:
    wanted = body["disks"][0]["initializeParams"]
    check_labels(wanted.get("labels", {}))
    kind = body["machineType"].rpartition("/")[2].partition("-")[0]
    if wanted["diskType"].rpartition("/")[2] not in kinds.DISKS[kind]:
        raise InvalidError(f"{wanted['diskType']} cannot be used with {kind}")
    source = wanted["sourceImage"]
    family = re.fullmatch(r"projects/([^/]+)/global/images/family/([^/]+)", source)
    own = re.fullmatch(r"projects/test-project/global/images/([^/]+)", source)
    if family and family.groups() in kinds.FAMILIES:
        return
    if own and own[1] in images:
        if int(wanted["diskSizeGb"]) < int(images[own[1]]["diskSizeGb"]):
            raise InvalidError("the disk is smaller than its image")
        return
    raise InvalidError(
        f"Invalid value for field 'resource.disks[0].initializeParams.sourceImage': "
        f"'{source}'. The referenced image resource cannot be found."
    )
