"""A directory that is a box, with the real agent bundle on it."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from onebox.agent_bundle import bundle, bytecode
from onebox.remote.channel import AgentChannel


class AgentBox:
    """
    A directory that the agent in it treats as its box.

    Attributes:
        home: The home directory; *work* below it is where jobs run.

        root: The agent's own directory, with *pyz*, the bundle.

        config: The content of box.json.

        tracer: The words that come before the command of an agent.
    """

    def __init__(self, base: Path) -> None:
        self.id = f"box-{secrets.token_hex(4)}"
        self.home = base / "home"
        self.work = self.home / "work"
        self.root = base / "agent root"
        self.pyz = self.root / "agent.pyz"
        self.work.mkdir(parents=True)
        self.root.mkdir()
        self.pyz.write_bytes(bundle())
        name, code = bytecode()
        (self.root / name).write_bytes(code)
        self._channels: list[AgentChannel] = []
        self.tracer: list[str] = []
        now = time.time()
        self.config: dict[str, Any] = {
            "box": self.id,
            "work": str(self.work),
            "home": str(self.home),
            "armed": now,
            "deadline": now + 3600,
            "setup_grace": 600,
            "idle_grace": 600,
            "poweroff": [
                sys.executable,
                "-c",
                "import sys; open(sys.argv[1], 'ab').write(b'off\\n')",
                str(self.off),
            ],
        }
        self.describe()

    @property
    def off(self) -> Path:
        """The file with one line for each time the box was powered off."""
        return self.root / "powered-off"

    def describe(self, **changes: Any) -> None:
        """Write box.json again, with these values changed."""
        self.config.update(changes)
        fresh = self.root / "box.json.new"
        fresh.write_text(json.dumps(self.config))
        fresh.replace(self.root / "box.json")

    def command(self, mode: str) -> list[str]:
        """Return the command line that starts the agent."""
        return [sys.executable, "-I", "-S", str(self.pyz), mode]

    def connect(self) -> AgentChannel:
        """Return a new channel to the agent; `close` closes it if the test does not."""
        channel = AgentChannel([*self.tracer, *self.command("serve")])
        self._channels.append(channel)
        return channel

    def close(self) -> None:
        """Close all channels, and kill the agent and all processes of its jobs."""
        for channel in self._channels:
            channel.close()
        # Found by command line: the pid of an agent that has ended may be reused.
        agent = os.fsencode(self.pyz)
        for pid in pids():
            if agent in read(f"/proc/{pid}/cmdline"):
                kill(pid)
        for pid in self.strays():
            kill(pid)

    def strays(self) -> list[int]:
        """Return the pids of all processes with this box's id in their environment."""
        mark = f"ONEBOX_BOX={self.id}".encode()
        return [pid for pid in pids() if mark in environment(pid)]


def until(true: Callable[[], Any], *, seconds: float = 120.0) -> Any:
    """Poll until the call returns a true value, and return it; fail after *seconds*."""
    end = time.monotonic() + seconds
    while True:
        value = true()
        if value:
            return value
        assert time.monotonic() < end, "the condition did not become true in time"
        time.sleep(0.01)


def pids() -> list[int]:
    """Return the pids of all processes; none without /proc."""
    return [int(path.name) for path in Path("/proc").glob("[0-9]*")]


def environment(pid: int) -> list[bytes]:
    """Return a process's environment; empty if it is unreadable or has ended."""
    return read(f"/proc/{pid}/environ").split(b"\0")


def read(path: str) -> bytes:
    """Return the content of a file of /proc; empty if the process has ended."""
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def kill(pid: int) -> None:
    """Kill a process that may have ended already."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
