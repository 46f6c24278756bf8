"""Linux machines behind the droplets: they boot, are reached by ssh, power off."""

from __future__ import annotations

import random
from contextlib import suppress

from tests.fakes.digitalocean.account import Account, Droplet, Hardware
from tests.fakes.machines import Disk, Machine, Machines, discard


class RealMachines(Hardware):
    """
    The machines of an account's droplets.

    A droplet whose machine powers itself off is off; it would still be billed.

    Attributes:
        of: The machine of each droplet, by its id.
    """

    def __init__(self, account: Account, machines: Machines) -> None:
        self._world = account
        self._machines = machines
        self._network = f"127.{random.randrange(64, 128)}.{random.randrange(256)}"
        self._disks: dict[int, Disk] = {}
        self._images: dict[int, Disk] = {}
        self.of: dict[int, Machine] = {}

    def address(self, droplet: Droplet) -> str:
        """Return the loopback address whose port 22 is the machine's."""
        return f"{self._network}.{droplet.id % 250 + 1}"

    def on(self, droplet: Droplet) -> None:
        """Boot a droplet's own disk, a copy of its image, or the plain disk."""
        disk = self._disks.get(droplet.id)
        image = droplet.body["image"]
        if disk is None and image in self._images:
            disk = self._images[image].copy()
            _network_is_there(disk)
        machine = self._machines.boot(
            droplet.body["name"],
            address=droplet.host,
            user_data=droplet.body["user_data"].encode(),
            kind="digitalocean",
            instance_id=str(droplet.id),
            metadata={"tags/": "\n".join(droplet.tags)},
            disk=disk,
            on_off=lambda: self._went_off(droplet, machine),
        )
        self.of[droplet.id] = machine
        self._disks[droplet.id] = machine.disk

    def shut(self, droplet: Droplet) -> bool:
        """Start the shutdown of its system, if it has booted so far."""
        with suppress(AssertionError, OSError):
            self.of[droplet.id].run("systemctl", "--no-block", "poweroff", check=False)
        return True

    def off(self, droplet: Droplet) -> None:
        """Cut the power."""
        machine = self.of[droplet.id]
        if machine.running:
            machine.off()

    def save(self, droplet: Droplet, image: int) -> None:
        """Copy the disk to an image."""
        self._images[image] = self._disks[droplet.id].copy()

    def remove(self, droplet: Droplet) -> None:
        """Cut the power and delete the disk, in a thread."""
        machine, disk = self.of.pop(droplet.id, None), self._disks.pop(droplet.id, None)
        discard(machine, disk)

    def _went_off(self, droplet: Droplet, machine: Machine) -> None:
        with self._world.lock:
            if self.of.get(droplet.id) is machine:
                droplet.status = "off"


def _network_is_there(disk: Disk) -> None:
    """
    Mark the network as configured for cloud-init, as it is on the plain disk.

    A sanitized image lacks the marker: its path is gone, or hidden by a device.
    """
    for folder in ("/var/lib/cloud", "/var/lib/cloud/data"):
        path = disk.file(folder)
        if path.exists() and not path.is_dir():
            path.unlink()
        path.mkdir(parents=True, exist_ok=True)
    (path / "upgraded-network").write_text("")
