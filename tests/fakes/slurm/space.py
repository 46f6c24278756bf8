"""Namespaces that end with the process that made them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.fakes.slurm.config import SYSTEM_PATH, environment

# A step of a tenth of a second may take minutes on a loaded host.
TIMEOUT = 180.0


class Space:
    """
    Namespaces with a first process; they end with it, and with its standard input.

    Attributes:
        pid: The first process, as this host numbers it.
    """

    def __init__(self, process: subprocess.Popen[str], pid: int) -> None:
        self._process = process
        self.pid = pid
        self._network = Path(f"/proc/{pid}/ns/net").readlink()

    @classmethod
    def start(cls, words: list[str], log: Path, within: Space | None = None) -> Space:
        """Start a script of this folder in namespaces; wait until it says `ready`."""
        # Nodes have a /tmp of their own, so they may not see the file.
        script = Path(__file__).with_name(words[0]).read_text()
        own = [] if within else ["--ipc", "--net"]
        with log.open("ab") as errors:
            process = subprocess.Popen(
                [
                    *(["nsenter", *within.enter()] if within else []),
                    *("env", "-i", f"PATH={SYSTEM_PATH}", "LANG=C.UTF-8"),
                    *("unshare", "--mount", "--uts", "--pid", *own),
                    *("--fork", "--kill-child=KILL", "--mount-proc"),
                    *("bash", "-c", script, *words),
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
            raise AssertionError(f"{words} does not start: {log.read_text()}")
        pid = process.pid
        for _ in range(2 if within else 1):
            pid = int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
        return cls(process, pid)

    def enter(self) -> list[str]:
        """Return the options of nsenter for these namespaces."""
        kinds = ("mount", "uts", "ipc", "net", "pid")
        return [f"--target={self.pid}", *(f"--{kind}" for kind in kinds)]

    def run(
        self, options: list[str], words: Sequence[str], *, check: bool
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the namespaces."""
        variables = [f"{name}={value}" for name, value in environment().items()]
        clean = ["env", "-i", f"PATH={SYSTEM_PATH}", "LANG=C.UTF-8", *variables]
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
