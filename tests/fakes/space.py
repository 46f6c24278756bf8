"""Namespaces that end with the process that made them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
# A step of a tenth of a second may take minutes on a loaded host.
TIMEOUT = 180.0


# Of <linux/sched.h>.
NEW_NETWORK = 0x40000000


def enter_network(network: Path) -> None:
    """Move the calling thread to a network namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    # `os.setns` needs Python 3.12.
    with network.open() as file:
        if libc.setns(file.fileno(), NEW_NETWORK):
            raise OSError(ctypes.get_errno(), "setns failed", str(network))


class Space:
    """
    Namespaces with a first process; they end with it, and with its standard input.

    Attributes:
        pid: The first process, as this host numbers it.
    """

    def __init__(
        self, process: subprocess.Popen[str], pid: int, variables: Mapping[str, str]
    ) -> None:
        self._process = process
        self._variables = variables
        self.pid = pid
        self._network = self.network.readlink()

    @classmethod
    def start(
        cls,
        script: Path,
        words: Sequence[str],
        log: Path,
        *,
        variables: Mapping[str, str],
        within: Space | None = None,
    ) -> Space:
        """
        Start a script in namespaces of its own; wait until it says `ready`.

        Args:
            script: The script of the first process, and *words* its arguments.

            log: Where its errors go.

            variables: What commands in the namespaces have in their environment.

            within: The namespaces whose network it has, instead of one of its own.
        """
        more = [f"{name}={value}" for name, value in variables.items()]
        own = [] if within else ["--ipc", "--net"]
        with log.open("ab") as errors:
            process = subprocess.Popen(
                [
                    *(["nsenter", *within.enter()] if within else []),
                    *("env", "-i", f"PATH={SYSTEM_PATH}", "LANG=C.UTF-8", *more),
                    *("unshare", "--mount", "--uts", "--pid", *own),
                    *("--fork", "--kill-child=KILL", "--mount-proc"),
                    # Nodes have a /tmp of their own, so they may not see the file.
                    *("bash", "-c", script.read_text(), script.name, *words),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                # Ctrl-C ends the tests, and they end the cluster.
                start_new_session=True,
            )
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            process.kill()
            raise AssertionError(f"{script} does not start: {log.read_text()}")
        pid = process.pid
        for _ in range(2 if within else 1):
            pid = int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
        return cls(process, pid, variables)

    @property
    def network(self) -> Path:
        """The network namespace, as a file that `enter_network` accepts."""
        return Path(f"/proc/{self.pid}/ns/net")

    def enter(self) -> list[str]:
        """Return the options of nsenter for these namespaces."""
        kinds = ("mount", "uts", "ipc", "net", "pid")
        return [f"--target={self.pid}", *(f"--{kind}" for kind in kinds)]

    def run(
        self, options: list[str], words: Sequence[str], *, check: bool
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the namespaces."""
        more = [f"{name}={value}" for name, value in self._variables.items()]
        clean = ["env", "-i", f"PATH={SYSTEM_PATH}", "LANG=C.UTF-8", *more]
        return subprocess.run(
            ["nsenter", *self.enter(), *options, *clean, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=check,
        )

    def stop(self, pid_file: str, name: str) -> None:
        """Send a signal to a daemon; wait until it has ended."""
        script = (
            'p=$(cat "$1") && kill -"$2" "$p" && '
            'while kill -0 "$p" 2>&-; do sleep 0.01; done'
        )
        self.run([], ["sh", "-c", script, "stop", pid_file, name], check=True)

    def processes(self) -> list[int]:
        """Return the processes in the network, and so on all nodes."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (path / "ns/net").readlink() == self._network:
                    found.append(int(path.name))
        return found

    def lives(self) -> bool:
        """Return whether the first process has not ended."""
        return self._process.poll() is None

    def end(self) -> None:
        """Kill everything in the namespaces, and wait for its end."""
        if self.lives():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
        self._process.wait(TIMEOUT)
