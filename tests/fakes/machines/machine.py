"""One machine: boot, commands as root, power-off, and its disk."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, MutableMapping
from pathlib import Path

from tests.fakes.machines.layer import layer
from tests.fakes.machines.metadata import Metadata
from tests.fakes.machines.network import Network, Relay, connect_to

START = Path(__file__).with_name("start.sh")
# Processes inside must not change this host's kernel.
BOUND = (
    "setpriv",
    "--bounding-set",
    "-sys_module,-sys_rawio,-sys_time,-syslog,-mknod,-mac_admin,-mac_override",
)
# A step of a second may take minutes on a loaded host.
TIMEOUT = 180.0


class Disk:
    """The files that a machine has written above the image; they outlive it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        for name in ("upper", "work"):
            (path / name).mkdir(parents=True, exist_ok=True)

    def copy(self) -> Disk:
        """Return a snapshot: a second disk with the same files."""
        copy = self.path.with_name(f"disk-{secrets.token_hex(4)}")
        copy.mkdir()
        words = ["cp", "-a", "--reflink=auto", str(self.path / "upper"), str(copy)]
        subprocess.run(words, check=True, timeout=TIMEOUT)
        return Disk(copy)

    def file(self, path: str) -> Path:
        """Return the path at which the host sees a file of the machine."""
        return self.path / "upper" / path.lstrip("/")

    def configure_network(self) -> None:
        """
        Mark the network as configured for cloud-init, as it is on the plain disk.

        A sanitized image lacks the marker: its path is gone, or hidden by a device.
        """
        for folder in ("/var/lib/cloud", "/var/lib/cloud/data"):
            path = self.file(folder)
            if path.exists() and not path.is_dir():
                path.unlink()
            path.mkdir(parents=True, exist_ok=True)
        (path / "upgraded-network").write_text("")

    def remove(self) -> None:
        """Delete the disk."""
        shutil.rmtree(self.path, ignore_errors=True)


class Machine:
    """
    A machine that has been booted; a reboot inside restarts it.

    Attributes:
        boots: The number of boots so far.

        ended: The time at which it went off (epoch seconds).

        group: The prefix of the names of its control groups.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        address: str,
        disk: Disk,
        service: Callable[[Network], Metadata],
        spawn: Callable[[list[str], int], subprocess.Popen[bytes]],
        on_off: Callable[[], None],
    ) -> None:
        self.name = name
        self.address = address
        self.disk = disk
        self.boots = 0
        self.ended = 0.0
        self._folder = folder
        self._spawn = spawn
        self._on_off = on_off
        self._unplugged = False
        self.group = f"onebox-test-{secrets.token_hex(4)}"
        self._off = threading.Event()
        self._changing = threading.Lock()
        self._master, self._slave = os.openpty()
        self._network = Network()
        self._service = service(self._network)
        self._relay = Relay(self._network, address) if address else None
        self._boot()
        threading.Thread(target=self._print, daemon=True).start()
        threading.Thread(target=self._watch, daemon=True).start()

    @property
    def running(self) -> bool:
        """Whether it is on."""
        return not self._off.is_set()

    @property
    def metadata(self) -> MutableMapping[str, str]:
        """Further paths of its metadata server; a test may change them."""
        return self._service.extra

    @property
    def published(self) -> Mapping[str, str]:
        """The guest attributes that it has published (Google only)."""
        return self._service.published

    def console(self) -> str:
        """Return its console output since its first boot."""
        path = self._folder / "console"
        return path.read_text(errors="replace") if path.exists() else ""

    def run(self, *words: str, check: bool = True) -> str:
        """Run a command in the machine as root; return its output."""
        done = subprocess.run(
            ["nsenter", "--all", f"--target={self._init()}", *BOUND, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=TIMEOUT,
            check=False,
        )
        assert not check or done.returncode == 0, f"{words}: {done.stdout}"
        return done.stdout

    def connect(self) -> socket.socket:
        """
        Return a connection to its ssh server, as from within the network of the cloud.

        Raises:
            OSError: It is off, or its ssh server does not run yet.
        """
        return connect_to(self._network)

    def off(self) -> None:
        """Cut the power."""
        with self._changing:
            self._unplugged = True
            self._process.kill()
        assert self.wait_off(TIMEOUT), f"{self.name} does not end"

    def wait_off(self, seconds: float) -> bool:
        """Wait until it is off, at most so long; return whether it is."""
        return self._off.wait(seconds)

    def _boot(self) -> None:
        self.boots += 1
        self._process = self._spawn(
            [
                "nsenter",
                f"--net={self._network.path}",
                "unshare",
                "--mount",
                "sh",
                str(START),
                str(self._folder),
                str(self.disk.path),
                str(layer()),
                self.name,
                os.ttyname(self._slave),
                f"{self.group}.{self.boots}",
                " ".join(BOUND),
            ],
            self._slave,
        )

    def _init(self) -> int:
        """Return the pid of the machine's first process, once that is systemd."""
        end = time.monotonic() + TIMEOUT
        while time.monotonic() < end:
            assert self.running, f"{self.name} is off"
            pid = self._process.pid
            with contextlib.suppress(OSError, ValueError):
                first = Path(f"/proc/{pid}/task/{pid}/children").read_text()
                # Before it executes systemd, it sees the host's own files.
                if Path(f"/proc/{int(first)}/comm").read_text() == "systemd\n":
                    return int(first)
            time.sleep(0.02)
        raise AssertionError(f"{self.name} does not begin")

    def _watch(self) -> None:
        # The kernel ends the first process with SIGHUP at a reboot, else with SIGINT.
        while self._process.wait() == -1:
            with self._changing:
                if self._unplugged:
                    break
                self._boot()
        ended = time.time()
        with contextlib.suppress(OSError):
            if self._relay is not None:
                self._relay.close()
            self._service.close()
            self._network.close()
            os.close(self._slave)
        end_groups([f"{self.group}.{n + 1}" for n in range(self.boots)])
        self.ended = ended
        self._off.set()
        if not self._unplugged:
            self._on_off()

    def _print(self) -> None:
        with (self._folder / "console").open("wb", buffering=0) as out:
            with contextlib.suppress(OSError):
                while True:
                    out.write(os.read(self._master, 1 << 16))
        os.close(self._master)


def end_groups(names: list[str]) -> None:
    """Kill the processes that are left in the control groups of a machine."""
    script = """
    mount -t cgroup2 cgroup2 "$0" && cd "$0" || exit
    for it; do
      for try in $(seq 100); do
        [ ! -e "$it/cgroup.kill" ] || echo 1 >"$it/cgroup.kill"
        find "$it" -depth -type d -exec rmdir {} + 2>/dev/null && break
        sleep 0.1
      done
    done
    """
    subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "/run", *names],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=TIMEOUT,
        check=True,
    )


def discard(machine: Machine | None, disk: Disk | None) -> None:
    """Cut a machine's power and delete its disk, in a thread."""

    def discard_both() -> None:
        if machine is not None and machine.running:
            machine.off()
        if disk is not None:
            disk.remove()

    threading.Thread(target=discard_both, daemon=True).start()
