"""Linux machines behind the instances: they boot, publish keys, and power off."""

from __future__ import annotations

import random
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from tests.fakes.gcp.account import Account
from tests.fakes.gcp.instances import stopped
from tests.fakes.machines import Disk, Machine, Machines, discard
from tests.fakes.machines.metadata import GCE

# A system that has not shut down after these seconds loses its power.
DOWN_SECONDS = 10.0


class RealMachines:
    """
    The machines of a project's instances.

    Args:
        closed: Whether no address of this host leads to a machine.

    Attributes:
        of: The machine of each instance, by its name.
    """

    def __init__(
        self, project: Account, machines: Machines, *, closed: bool = False
    ) -> None:
        self._closed = closed
        self._project = project
        self._machines = machines
        self._network = f"127.{random.randrange(64, 128)}.{random.randrange(256)}"
        self._disks: dict[str, Disk] = {}
        self._images: dict[str, Disk] = {}
        self.of: dict[str, Machine] = {}
        project.instances.hardware = self

    def on(self, instance: dict[str, Any]) -> str:
        """Boot an instance's machine with its present metadata; return its address."""
        name, number = instance["name"], instance["id"]
        items = {item["key"]: item["value"] for item in instance["metadata"]["items"]}
        user_data = items.pop("user-data", "").encode()
        script = items.pop("startup-script", "")
        disk = self._disks.get(name)
        source = self._project.instances.disks[_zone(instance), name]["sourceImage"]
        image = source.rpartition("/")[2]
        if disk is None and image in self._images:
            disk = self._images[image].copy()
        address = f"{self._network}.{int(number) % 250 + 1}"
        machine = self._machines.boot(
            name,
            address="" if self._closed else address,
            user_data=user_data,
            kind=GCE,
            instance_id=number,
            metadata={f"instance/attributes/{key}": items[key] for key in items},
            startup_script=script,
            disk=disk,
            on_off=lambda: self._went_off(instance, machine),
        )
        self.of[name] = machine
        self._disks[name] = machine.disk
        return address

    def connect(self, name: str) -> socket.socket:
        """Return a connection to the ssh server of an instance. Raises OSError."""
        return self.of[name].connect()

    def guest_attributes(self, name: str) -> Mapping[str, str]:
        """Return the guest attributes that a machine has published."""
        return self.of[name].published if name in self.of else {}

    def shut(self, name: str) -> None:
        """Start the shutdown of a machine's system, if it has booted so far."""
        with suppress(AssertionError, OSError):
            self.of[name].run("systemctl", "--no-block", "poweroff", check=False)

    def off(self, name: str) -> None:
        """Wait until a machine is off; cut its power after `DOWN_SECONDS`."""
        machine = self.of[name]
        if not machine.wait_off(DOWN_SECONDS):
            machine.off()

    def warn(self, name: str) -> None:
        """Announce a preemption in the machine's metadata."""
        self.of[name].metadata["instance/preempted"] = "TRUE"

    def save(self, name: str, image: str) -> None:
        """Copy a machine's disk to an image."""
        self._images[image] = self._disks[name].copy()

    def remove(self, name: str) -> None:
        """Cut the power and delete the disk, in a thread."""
        machine, disk = self.of.pop(name, None), self._disks.pop(name, None)
        discard(machine, disk)

    def _went_off(self, instance: dict[str, Any], machine: Machine) -> None:
        """Set an instance to stopped after its system has powered off."""
        name = instance["name"]
        with self._project.lock:
            if self.of.get(name) is machine and instance["status"] == "RUNNING":
                kind = "compute.instances.guestTerminate"
                place = {"zone": _zone(instance)}
                self._project.operations.note(kind, instance, place)
                stopped(instance)


def _zone(instance: Mapping[str, Any]) -> str:
    return str(instance["zone"].rpartition("/")[2])
