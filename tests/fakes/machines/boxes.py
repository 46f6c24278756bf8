"""Boxes on machines without a provider: the user data alone makes the box."""

from __future__ import annotations

import contextlib
import functools
import random
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from onebox import agent_bundle
from onebox.providers.kernel import user_data
from onebox.providers.values import BootConfig, Box, HostKey, Offer, Request, Tags
from onebox.remote import keys
from onebox.remote.channel import AgentChannel
from onebox.remote.connection import SSHConnection
from tests.fakes import agent_box
from tests.fakes.machines import Disk, Machine, Machines, missing
from tests.fakes.machines.metadata import EC2, Kind
from tests.fakes.machines.network import random_address

# A boot takes three seconds; on a loaded host it may take minutes.
UP = 300.0


@dataclass
class MachineBox:
    """A box on a machine, with the keys that its client has."""

    request: Request
    machine: Machine
    folder: Path
    host_key: str
    kind: Kind
    instance_id: str

    def box(self, host_key: str = "") -> Box:
        """Return the box as a provider would return it."""
        request = self.request
        return Box(
            id=request.box,
            tags=request.tags,
            state="running",
            offer=request.offer,
            image="",
            place="",
            host=self.machine.address,
            port=22,
            user=user_data.USER,
            host_key=host_key or self.host_key,
            created=0.0,
            deadline=request.boot_config.deadline,
            agent=user_data.AGENT,
            work=user_data.WORK,
        )

    @contextlib.contextmanager
    def link(self, host_key: str = "") -> Iterator[AgentChannel]:
        """Wait for ssh; yield a channel to the agent."""
        ssh = SSHConnection(
            self.box(host_key), self.folder / "door", self.folder / "identity"
        )
        try:
            yield ssh.open_when_up(UP, self.alive, lambda: None)
        finally:
            ssh.forget()

    def alive(self) -> None:
        """Assert that the machine is on."""
        assert self.machine.running, self.machine.console()[-2000:]

    def scan(self) -> set[str]:
        """Return all host keys that its sshd offers."""
        done = subprocess.run(
            ["ssh-keyscan", "-T", "60", self.machine.address],
            capture_output=True,
            text=True,
            check=False,
        )
        lines = [line for line in done.stdout.splitlines() if line[:1] != "#"]
        return {" ".join(line.split()[1:3]) for line in lines}


class BoxMaker:
    """Boots boxes on machines, with the user data that a provider would send."""

    def __init__(self, machines: Machines, folder: Path) -> None:
        self.machines = machines
        self.folder = folder
        self.identity = keys.ssh_key_file(folder)

    def make(
        self,
        kind: Kind = EC2,
        *,
        seconds: float = 3600,
        setup_grace: float = 2700,
        seed: bytes | None = None,
        **options: Any,
    ) -> MachineBox:
        """Boot a new box with a deadline *seconds* from now; *options* as in `boot`."""
        name = f"ob-{random.randrange(1 << 40):010x}"
        deadline = time.time() + seconds
        request = Request(
            box=name,
            tags=Tags("owner", "project", "main", deadline, "0"),
            offer=Offer("small", "t", 1, 1, None, None),
            image=None,
            user_key=keys.public_half(self.identity),
            host_key=keys.new_host_key(self.folder),
            boot_config=BootConfig(
                deadline=deadline,
                setup_grace=setup_grace,
                idle_grace=600,
                agent=agent_bundle.bundle(),
                seed=agent_bundle.seed() if seed is None else seed,
            ),
        )
        number = str(random.randrange(10**9))
        return self.boot(
            request, kind, f"i-{number}" if kind is EC2 else number, **options
        )

    def boot(
        self,
        request: Request,
        kind: Kind,
        instance_id: str,
        *,
        disk: Disk | None = None,
        host_key: bool = True,
        late: float = user_data.LATE,
        startup_script: bool = False,
    ) -> MachineBox:
        """Boot a machine for a request, as a machine of cloud *kind*."""
        notice = kind.notice
        script, boot_data = "", b""
        if startup_script:
            script = user_data.startup_script(request, notice=notice, late=late)
        else:
            boot_data = user_data.user_data(
                request,
                notice=notice,
                host_key=host_key,
                packed=kind is EC2,
                late=late,
            )
        machine = self.machines.boot(
            request.box,
            address=random_address(),
            user_data=boot_data,
            kind=kind,
            instance_id=instance_id,
            startup_script=script,
            disk=disk,
        )
        public = request.host_key.public if host_key and not startup_script else ""
        folder = self.folder / request.box
        folder.mkdir(exist_ok=True)
        with contextlib.suppress(FileExistsError):
            (folder / "identity").symlink_to(self.identity)
        return MachineBox(request, machine, folder, public, kind, instance_id)

    def start_again(
        self, box: MachineBox, *, seconds: float, host_key: str
    ) -> MachineBox:
        """Boot the disk of a stopped box with a new deadline."""
        late = replace(box.request.boot_config, deadline=time.time() + seconds)
        request = replace(box.request, boot_config=late, host_key=HostKey("", host_key))
        fresh = self.boot(request, box.kind, box.instance_id, disk=box.machine.disk)
        return replace(fresh, host_key=host_key)


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    """Machines, for the tests of one module."""
    why = missing()
    if why:
        pytest.skip(why)
    with Machines() as machines:
        yield machines


@pytest.fixture(scope="module")
def maker(machines: Machines) -> Iterator[BoxMaker]:
    """A maker of boxes on these machines."""
    # Connections that are closing delete their own files meanwhile.
    with tempfile.TemporaryDirectory(prefix="ob-") as folder:
        yield BoxMaker(machines, Path(folder))


# Polls a condition for as long as a boot may take.
until = functools.partial(agent_box.until, seconds=UP)
