"""Machines for the tests, and boxes made of them as a provider makes them."""

from __future__ import annotations

import contextlib
import random
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from onebox.providers.base import BootConfig, Box, HostKey, Offer, Request, Tags
from onebox.providers.kernel import user_data
from onebox.remote import agent_bundle, keys
from onebox.remote.channel import AgentChannel
from onebox.remote.connection import SSHConnection
from tests.fakes.machines import Disk, Machine, Machines, missing
from tests.fakes.machines.metadata import Kind
from tests.fakes.machines.network import an_address

NOTICES: dict[Kind, user_data.Notice] = {"ec2": "ec2", "gce": "gce", "digitalocean": ""}
# A boot takes three seconds; this is for a machine that others work on as well.
UP = 300.0


@dataclass
class Made:
    """A box on a machine, and what its client knows of it."""

    request: Request
    machine: Machine
    folder: Path
    host_key: str
    kind: Kind
    instance_id: str

    def box(self, host_key: str = "") -> Box:
        """Return it as its provider would."""
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
        """Log in, as soon as it lets us in."""
        door = SSHConnection(
            self.box(host_key), self.folder / "door", self.folder / "identity"
        )
        try:
            yield door.open_when_up(UP, self.alive, lambda: None)
        finally:
            door.forget()

    def alive(self) -> None:
        """Fail when it is off."""
        assert self.machine.running, self.machine.console()[-2000:]

    def scan(self) -> set[str]:
        """Return all the host keys that it answers with now."""
        done = subprocess.run(
            ["ssh-keyscan", "-T", "60", self.machine.address],
            capture_output=True,
            text=True,
            check=False,
        )
        lines = [line for line in done.stdout.splitlines() if line[:1] != "#"]
        return {" ".join(line.split()[1:3]) for line in lines}


class Maker:
    """Makes boxes on machines, as a provider would."""

    def __init__(self, machines: Machines, folder: Path) -> None:
        self.machines = machines
        self.folder = folder
        self.identity = keys.identity(folder)

    def make(
        self,
        kind: Kind = "ec2",
        *,
        seconds: float = 3600,
        setup_grace: float = 2700,
        seed: bytes | None = None,
        **options: Any,
    ) -> Made:
        """Boot a box that is to live for some seconds; *options* as for `boot`."""
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
            request, kind, f"i-{number}" if kind == "ec2" else number, **options
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
    ) -> Made:
        """Boot a machine for a request, in whatever cloud."""
        notice = NOTICES[kind]
        script, told = "", b""
        if startup_script:
            script = user_data.startup_script(request, notice=notice, late=late)
        else:
            told = user_data.user_data(
                request,
                notice=notice,
                host_key=host_key,
                packed=kind == "ec2",
                late=late,
            )
        machine = self.machines.boot(
            request.box,
            address=an_address(),
            user_data=told,
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
        return Made(request, machine, folder, public, kind, instance_id)

    def again(self, made: Made, *, seconds: float, host_key: str) -> Made:
        """Start a box again that was off, with a new deadline."""
        late = replace(made.request.boot_config, deadline=time.time() + seconds)
        request = replace(
            made.request, boot_config=late, host_key=HostKey("", host_key)
        )
        fresh = self.boot(request, made.kind, made.instance_id, disk=made.machine.disk)
        return replace(fresh, host_key=host_key)


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    """Machines, for the tests of one module."""
    why = missing()
    if why:
        pytest.skip(why)
    with Machines() as made:
        yield made


@pytest.fixture(scope="module")
def maker(machines: Machines) -> Iterator[Maker]:
    """What makes boxes on them."""
    # Connections that have just been told to end remove what is theirs meanwhile.
    with tempfile.TemporaryDirectory(prefix="ob-") as folder:
        yield Maker(machines, Path(folder))


def until(true: Any, *, seconds: float = UP) -> Any:
    """Wait for something to become true and return it; fail if it does not."""
    end = time.monotonic() + seconds
    while True:
        value = true()
        if value:
            return value
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.1)
