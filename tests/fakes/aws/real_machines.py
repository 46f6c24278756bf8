"""Linux machines behind the account's instances: they boot, and have real disks."""

from __future__ import annotations

import base64
import itertools
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.fakes.aws.account import Account
from tests.fakes.machines import Disk, Machine, Machines
from tests.fakes.machines.metadata import EC2

NOTICE = "spot/instance-action"


class RealMachines:
    """
    The machines of an account's instances.

    Args:
        closed: Whether no address of this host leads to a machine.

    Attributes:
        disks: The disks, by the ids of their volumes.

        machines: All machines, also former ones, by the ids of their instances.
    """

    def __init__(
        self, account: Account, machines: Machines, *, closed: bool = False
    ) -> None:
        self.account = account
        self._closed = closed
        self.disks: dict[str, Disk] = {}
        self.machines: dict[str, Machine] = {}
        self._machines = machines
        self._numbers = itertools.count(2)
        self._net = random.randrange(64, 128)

    @contextmanager
    def standing(self) -> Iterator[RealMachines]:
        """Boot a machine for each instance, as long as the context is open."""
        account = self.account
        before = account.boot, account.off, account.address, account.saved
        account.boot, account.off = self.boot, self.off
        account.address, account.saved = self.address, self.saved
        try:
            yield self
        finally:
            account.boot, account.off, account.address, account.saved = before
            for machine in self.machines.values():
                if machine.running:
                    machine.off()
            for disk in self.disks.values():
                disk.remove()

    def address(self, instance: Any) -> str:
        """Return a loopback address for an instance."""
        return f"127.{self._net}.{random.randrange(256)}.{next(self._numbers)}"

    def boot(self, instance: Any) -> None:
        """Boot an instance from the disk that is attached to it now."""
        volume = self._volume(instance)
        if volume not in self.disks:
            saved = self.disks.get(str(instance.image_id))
            self.disks[volume] = saved.copy() if saved else Disk(self._new(volume))
        self.machines[instance.id] = self._machines.boot(
            instance.id,
            address="" if self._closed else self._reached_at(instance),
            user_data=base64.b64decode(str(instance.user_data)),
            kind=EC2,
            instance_id=instance.id,
            disk=self.disks[volume],
            # The report waits for the account's lock, so it runs in its own thread.
            on_off=lambda: threading.Thread(
                target=self.account.power_off, args=(instance.id,), daemon=True
            ).start(),
        )

    def connect(self, instance: str) -> socket.socket:
        """Return a connection to the ssh server of an instance. Raises OSError."""
        return self.machines[instance].connect()

    def off(self, instance: Any) -> None:
        """Cut an instance's power, if it runs."""
        machine = self.machines.get(instance.id)
        if machine is not None and machine.running:
            machine.off()

    def saved(self, instance: Any, image: Any) -> None:
        """Copy an instance's disk to an image."""
        self.disks[image.id] = self.disks[self._volume(instance)].copy()

    def notify(self, instance: str, when: str) -> None:
        """Announce an interruption in the machine's metadata."""
        notice = f'{{"action": "terminate", "time": "{when}"}}'
        self.machines[instance].metadata[NOTICE] = notice

    def _reached_at(self, instance: Any) -> str:
        return str(instance.public_ip or instance.private_ip)

    def _volume(self, instance: Any) -> str:
        ((_, held),) = instance.get_block_device_mapping
        return str(held.volume_id)

    def _new(self, volume: str) -> Any:
        return self._machines.place / f"disk-{volume}"
