"""Linux machines behind the servers: they boot, are reached by ssh, power off."""

from __future__ import annotations

import json
import random
import threading
from contextlib import suppress

from tests.fakes.hetzner.account import CloudServer, Hardware, Project
from tests.fakes.machines import Disk, Machine, Machines
from tests.fakes.machines.metadata import Boot, Kind


def _paths(boot: Boot) -> dict[str, bytes]:
    """Return the paths and bodies of a server's metadata server (JSON is YAML too)."""
    root = "/hetzner/v1/metadata"
    whole = {
        "instance-id": int(boot.instance_id),
        "hostname": boot.hostname,
        "region": "eu-central",
        "public-keys": [],
        "network-config": {"version": 1, "config": []},
        "vendor_data": "",
    }
    return {
        root: json.dumps(whole).encode(),
        f"{root}/instance-id": boot.instance_id.encode(),
        f"{root}/hostname": boot.hostname.encode(),
        "/hetzner/v1/userdata": boot.user_data,
    }


HETZNER = Kind(
    datasource="Hetzner",
    dmi={"sys_vendor": "Hetzner", "product_serial": "{id}"},
    root="/hetzner/v1/metadata/",
    paths=_paths,
)


class RealMachines(Hardware):
    """
    The machines of a project's servers.

    A server whose machine powers itself off is off; it would still be billed.

    Attributes:
        of: The machine of each server, by its id.
    """

    def __init__(self, project: Project, machines: Machines) -> None:
        self._project = project
        self._machines = machines
        self._network = f"127.{random.randrange(64, 128)}.{random.randrange(256)}"
        self._disks: dict[int, Disk] = {}
        self._images: dict[int, Disk] = {}
        self.of: dict[int, Machine] = {}

    def address(self, server: CloudServer) -> str:
        """Return the loopback address whose port 22 is the machine's."""
        return f"{self._network}.{server.id % 250 + 1}"

    def on(self, server: CloudServer) -> None:
        """Boot a server's own disk, a copy of its image, or the plain disk."""
        disk = self._disks.get(server.id)
        image = server.body["image"]
        if disk is None and image in self._images:
            disk = self._images[image].copy()
            disk.configure_network()
        machine = self._machines.boot(
            server.body["name"],
            address=server.host,
            user_data=server.body["user_data"].encode(),
            kind=HETZNER,
            instance_id=str(server.id),
            disk=disk,
            on_off=lambda: self._went_off(server, machine),
        )
        self.of[server.id] = machine
        self._disks[server.id] = machine.disk

    def shut(self, server: CloudServer) -> bool:
        """Start the shutdown of its system, if it has booted so far."""
        with suppress(AssertionError, OSError):
            self.of[server.id].run("systemctl", "--no-block", "poweroff", check=False)
        return True

    def off(self, server: CloudServer) -> None:
        """Cut the power."""
        machine = self.of[server.id]
        if machine.running:
            machine.off()

    def save(self, server: CloudServer, image: int) -> None:
        """Copy the disk to an image."""
        self._images[image] = self._disks[server.id].copy()

    def remove(self, server: CloudServer) -> None:
        """Cut the power and delete the disk, in a thread."""
        machine, disk = self.of.pop(server.id, None), self._disks.pop(server.id, None)

        def away() -> None:
            if machine is not None and machine.running:
                machine.off()
            if disk is not None:
                disk.remove()

        threading.Thread(target=away, daemon=True).start()

    def _went_off(self, server: CloudServer, machine: Machine) -> None:
        with self._project.lock:
            if self.of.get(server.id) is machine:
                server.status = "off"
