"""Boot machines; delete all of them at the end."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fakes.machines.layer import DATASOURCE_CFG, PLACE, WITHOUT_CLOUD_INIT
from tests.fakes.machines.machine import Disk, Machine
from tests.fakes.machines.metadata import Boot, Kind, Metadata
from tests.fakes.machines.network import METADATA, Network


class Machines:
    """
    Boots machines; at the end of the context all of them and their disks are deleted.

    Args:
        place: An empty directory on a file system that can hold an overlay's upper
            layer; by default a new one beside the image.
    """

    def __init__(self, place: Path | None = None) -> None:
        if place is None:
            PLACE.mkdir(mode=0o700, exist_ok=True)
            place = Path(tempfile.mkdtemp(dir=PLACE, prefix="run-"))
        self.place = place
        self._made: list[Machine] = []
        # `--pdeathsig` ends a process with the *thread* that started it; this thread
        # lives as long as the machines.
        self._spawner = ThreadPoolExecutor(1)

    def __enter__(self) -> Machines:
        return self

    def __exit__(self, *exc: object) -> None:
        for machine in self._made:
            if machine.running:
                machine.off()
        self._spawner.shutdown()
        shutil.rmtree(self.place, ignore_errors=True)

    def boot(
        self,
        name: str,
        *,
        address: str,
        user_data: bytes,
        kind: Kind,
        instance_id: str,
        metadata: Mapping[str, str] | None = None,
        startup_script: str = "",
        disk: Disk | None = None,
        on_off: Callable[[], None] = lambda: None,
    ) -> Machine:
        """
        Boot a machine.

        Args:
            address: The loopback address whose port 22 is the machine's; with "", no
                address of this host leads to the machine.

            metadata: Further paths of its metadata server, with their bodies.

            startup_script: Google's startup script; the image then has no cloud-init.

            disk: The disk that it boots; by default a new one with the plain image.

            on_off: Called when it has powered itself off.
        """
        folder = self.place / f"machine-{secrets.token_hex(4)}"
        (folder / "dmi/id").mkdir(parents=True)
        for key, value in kind.dmi.items():
            (folder / "dmi/id" / key).write_text(value.format(id=instance_id) + "\n")
        disk = disk or Disk(self.place / f"disk-{secrets.token_hex(4)}")
        if startup_script:
            mark = disk.file(WITHOUT_CLOUD_INIT)
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
        config = disk.file(DATASOURCE_CFG)
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(f"datasource_list: [{kind.datasource}]\n")
        boot = Boot(instance_id, name, user_data, startup_script)
        extra = dict(metadata or {})
        machine = Machine(
            folder,
            name,
            address,
            disk,
            lambda network: _service(network, kind, boot, extra),
            lambda argv, out: self._spawner.submit(_spawn, argv, out).result(),
            on_off,
        )
        self._made.append(machine)
        return machine


def _service(
    network: Network, kind: Kind, boot: Boot, extra: MutableMapping[str, str]
) -> Metadata:
    listening = network.socket()
    listening.bind((METADATA, 80))
    listening.listen(64)
    return Metadata(kind, listening, kind.paths(boot), extra)


def _spawn(argv: list[str], out: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", *argv],
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=out,
        start_new_session=True,
    )
