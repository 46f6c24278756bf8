"""A box of its own for each test, with the real bundle on it."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from onebox.remote.agent_bundle import bundle
from onebox.remote.channel import AgentChannel


class AgentBox:
    """
    A directory that is a box to the agent in it: *root*, *home* and *work*.

    Whatever a job leaves running dies with the test.
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
        self._links: list[AgentChannel] = []
        now = time.time()
        self.told: dict[str, Any] = {
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
        """Write box.json anew, with these values changed."""
        self.told.update(changes)
        fresh = self.root / "box.json.new"
        fresh.write_text(json.dumps(self.told))
        fresh.replace(self.root / "box.json")

    def command(self, mode: str) -> list[str]:
        """Return the command line that starts the agent."""
        return [sys.executable, "-I", "-S", str(self.pyz), mode]

    def link(self) -> AgentChannel:
        """Connect to the agent; hung up at the end of the test at the latest."""
        link = AgentChannel(self.command("serve"))
        self._links.append(link)
        return link

    def close(self) -> None:
        """Hang up, and kill what still runs of any job."""
        for link in self._links:
            link.close()
        # By its command line: the number of one that has ended may be another's.
        agent = os.fsencode(self.pyz)
        for pid in pids():
            if agent in read(f"/proc/{pid}/cmdline"):
                kill(pid)
        for pid in self.strays():
            kill(pid)

    def strays(self) -> list[int]:
        """Return the pids of all processes that carry this box's name."""
        mark = f"ONEBOX_BOX={self.id}".encode()
        return [pid for pid in pids() if mark in environment(pid)]


@pytest.fixture
def agent_box(tmp_path: Path) -> Iterator[AgentBox]:
    """A box with the agent on it, and nothing else yet."""
    box = AgentBox(tmp_path)
    yield box
    box.close()


def until(true: Callable[[], Any], *, seconds: float = 120.0) -> Any:
    """Wait for something to become true and return it; fail if it does not."""
    end = time.monotonic() + seconds
    while True:
        value = true()
        if value:
            return value
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def pids() -> list[int]:
    """Return the pids of all processes (where there is /proc)."""
    return [int(path.name) for path in Path("/proc").glob("[0-9]*")]


def environment(pid: int) -> list[bytes]:
    """Return a process's environment; empty if it is none of ours, or gone."""
    return read(f"/proc/{pid}/environ").split(b"\0")


def read(path: str) -> bytes:
    """Return what /proc has of a process, nothing if that is gone."""
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def kill(pid: int) -> None:
    """Kill a process that may be gone already."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
