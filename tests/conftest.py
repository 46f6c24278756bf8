"""A project of its own for each test, driven by real `inv` lines."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import settings

from onebox.providers.local import directories, processes

from .ending import ends_with_us, living_in

# How long an example takes says nothing on a busy machine.
settings.register_profile("onebox", deadline=None)
settings.load_profile("onebox")

TASKS = "from onebox import *\n"
TOML = """\
[run]
command = "sh job.sh"

[fetch]
outputs = ["results/"]
"""
JOB = """\
echo working
mkdir -p results
echo 42 > results/answer.txt
"""


@dataclass
class Done:
    """How an `inv` line ended."""

    code: int
    out: str
    err: str


@dataclass
class Project:
    """A project folder, with a user's state, configuration and boxes of its own."""

    root: Path
    home: Path
    environ: dict[str, str] = field(default_factory=dict)

    def write(self, name: str, text: str | bytes) -> Path:
        """Write a file of the project."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def read(self, name: str) -> str:
        """Return the text of a file of the project."""
        return (self.root / name).read_text()

    def inv(
        self,
        *words: str,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout: float = 300,
    ) -> Done:
        """Run an `inv` line to its end."""
        done = subprocess.run(
            self.argv(*words),
            cwd=cwd or self.root,
            env={**self.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=timeout,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start an `inv` line in a session of its own, output to files."""
        with (self.home / "out").open("wb") as out, (self.home / "err").open("wb") as e:
            return subprocess.Popen(
                self.argv(*words),
                cwd=self.root,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=e,
                start_new_session=True,
            )

    @property
    def out(self) -> str:
        """What the line begun with `start` has printed so far."""
        return (self.home / "out").read_text(errors="replace")

    @property
    def err(self) -> str:
        """What the line begun with `start` has said so far."""
        return (self.home / "err").read_text(errors="replace")

    def argv(self, *words: str) -> list[str]:
        """Return the command that is `inv` with these words."""
        return [sys.executable, "-m", "invoke", *words]

    def boxes(self) -> list[str]:
        """Return the ids of the boxes there are, of whatever owner."""
        folder = self.home / "local" / "boxes"
        return sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []

    def cut_power(self, boxes: Iterable[str] | None = None) -> None:
        """
        Have everything in the boxes gone at once: nobody is asked.

        These *boxes*, or all of them.

        What a client starts there again right after is not touched.
        """
        for name in self.boxes() if boxes is None else boxes:
            found: set[int] = set()
            while fresh := processes.marked(name) - found:
                # None of them can start another one, or mourn, any more.
                send(signal.SIGSTOP, fresh)
                found |= fresh
            while left := processes.marked(name) & found:
                send(signal.SIGKILL, left)
            # Its environment goes before its files, and the locks on those.
            while any(map(_lives, found)):
                time.sleep(0.01)

    def processes(self) -> list[int]:
        """Return the processes that live in one of this user's boxes."""
        return living_in(self.home / "local")

    def until(self, text: str, *, seconds: float = 300) -> None:
        """Wait until the line begun with `start` has printed *text*."""
        end = time.monotonic() + seconds
        while text not in self.out + self.err:
            assert time.monotonic() < end, f"no {text!r} in {self.out}{self.err}"
            time.sleep(0.02)


def _lives(pid: int) -> bool:
    """Tell whether a process has not ended; a zombie has."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")


def send(number: int, pids: Iterable[int]) -> None:
    """Send a signal to those of these processes that are still there."""
    for pid in sorted(pids):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def pytest_configure() -> None:
    """Heed what a shell has its background commands ignore: the tests send it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for ignored in (signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(ignored) is signal.SIG_IGN:
            signal.signal(ignored, signal.SIG_DFL)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """A small project; whatever box it leaves is ended with the test."""
    # pytest's own folder has a long name, and a box's path has a limit.
    home = Path(f"/var/tmp/onebox-test-{os.getpid()}-{time.monotonic_ns():x}")
    home.mkdir(mode=0o700)
    ends_with_us(home)
    root = tmp_path / "census"
    root.mkdir()
    made = Project(root, home)
    kept = {k: v for k, v in os.environ.items() if k in ("PATH", "TERM")}
    made.environ = {
        **kept,
        "LANG": "C.UTF-8",
        "HOME": str(home),
        "ONEBOX_STATE": str(home / "state"),
        "ONEBOX_IDENTITY": str(home / "config"),
        "ONEBOX_LOCAL_ROOT": str(home / "local"),
    }
    made.write("tasks.py", TASKS)
    made.write("onebox.toml", TOML)
    made.write("job.sh", JOB)
    yield made
    for pid in made.processes():
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    with contextlib.suppress(OSError):
        directories.remove(home)
