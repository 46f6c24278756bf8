"""What all tests share: a project with real `inv` lines, a box, and the fast tests."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from onebox.providers.local import box_processes, directories
from tests import order
from tests.box_reaper import ends_with_us, living_in
from tests.fakes import warm_processes
from tests.fakes.agent_box import AgentBox

# The imports of all tests make few cycles; to search for them takes a second.
gc.disable()
# On a busy machine an example may take any time.
settings.register_profile(
    "onebox", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
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


# Fixtures that start a box, a machine or a server. A test that uses one is slow.
STARTERS = {
    "account",
    "agent_box",
    "box",
    "google",
    "line",
    "machines",
    "open_box",
    "place",
    "project",
    "server",
    "sshd",
}


@dataclass
class Done:
    """
    The result of an `inv` line.

    Attributes:
        code: The exit code.

        out: The output on stdout, *err* that on stderr.
    """

    code: int
    out: str
    err: str


@dataclass
class Project:
    """
    A project folder of a user who has their own state, configuration and boxes.

    Attributes:
        root: The project folder.

        home: The user's home folder; *environ* is the user's environment.
    """

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
        environ = {**self.environ, **(env or {})}
        if warm_processes.usable(environ):
            code, out, err = warm_processes.run(
                words, cwd or self.root, environ, timeout=timeout
            )
            return Done(code, text(out), text(err))
        done = subprocess.run(
            self.argv(*words),
            cwd=cwd or self.root,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
        return Done(done.returncode, text(done.stdout), text(done.stderr))

    def onebox(
        self, *words: str, cwd: Path | None = None, env: Mapping[str, str] | None = None
    ) -> Done:
        """Run an `onebox` line to its end."""
        environ = {**self.environ, **(env or {})}
        if warm_processes.usable(environ):
            code, out, err = warm_processes.run(
                words, cwd or self.root, environ, timeout=300, program="onebox"
            )
            return Done(code, text(out), text(err))
        done = subprocess.run(
            [sys.executable, "-m", "onebox", *words],
            cwd=cwd or self.root,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=300,
            check=False,
        )
        return Done(done.returncode, text(done.stdout), text(done.stderr))

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start an `inv` line in its own session, with its output in files."""
        with (self.home / "out").open("wb") as out, (self.home / "err").open("wb") as e:
            if warm_processes.usable(self.environ):
                files = out.fileno(), e.fileno()
                return warm_processes.Line(
                    words, self.root, self.environ, files, new_session=True
                )
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
        """The output of the line of `start` on stdout so far."""
        return (self.home / "out").read_text(errors="replace")

    @property
    def err(self) -> str:
        """The output of the line of `start` on stderr so far."""
        return (self.home / "err").read_text(errors="replace")

    def argv(self, *words: str) -> list[str]:
        """Return the command line of `inv` with these words."""
        return [sys.executable, "-m", "invoke", *words]

    def boxes(self) -> list[str]:
        """Return the ids of all boxes, of any owner."""
        folder = self.home / "local" / "boxes"
        return sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []

    def cut_power(self, boxes: Iterable[str] | None = None) -> None:
        """
        Kill everything in these *boxes*, or in all of them, at once.

        Processes that a client starts there afterwards are not killed.
        """
        for name in self.boxes() if boxes is None else boxes:
            found: set[int] = set()
            while fresh := box_processes.marked(name) - found:
                # A stopped process can neither start another one nor handle its end.
                send(signal.SIGSTOP, fresh)
                found |= fresh
            while left := box_processes.marked(name) & found:
                send(signal.SIGKILL, left)
            # A dying process loses its environment before its files and locks.
            while any(map(_is_running, found)):
                time.sleep(0.01)

    def processes(self) -> list[int]:
        """Return the pids of all processes in this user's boxes."""
        return living_in(self.home / "local")

    def until(self, text: str, *, seconds: float = 300) -> None:
        """Wait until the line of `start` has printed *text*."""
        end = time.monotonic() + seconds
        while text not in self.out + self.err:
            assert time.monotonic() < end, f"no {text!r} in {self.out}{self.err}"
            time.sleep(0.02)


def text(output: bytes) -> str:
    """Return output as text with universal newlines."""
    decoded = output.decode(errors="surrogateescape")
    return decoded.replace("\r\n", "\n").replace("\r", "\n")


def _is_running(pid: int) -> bool:
    """Return whether a process has not ended; a zombie has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")


def send(number: int, pids: Iterable[int]) -> None:
    """Send a signal to those of these processes that still exist."""
    for pid in sorted(pids):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


warm_processes.warm_boxes()


def pytest_configure() -> None:
    """Handle the signals that a shell's background command ignores: tests send them."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for ignored in (signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(ignored) is signal.SIG_IGN:
            signal.signal(ignored, signal.SIG_DFL)


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """
    Mark a test that starts something as slow, unless it is marked as fast.

    If several processes run the tests, order them.
    """
    for item in items:
        starts = STARTERS.intersection(getattr(item, "fixturenames", ()))
        if starts and item.get_closest_marker("fast") is None:
            item.add_marker("slow")
    processes = getattr(config, "workerinput", {}).get("workercount", 1)
    if processes > 1:
        items[:] = order.spread(items, processes, lambda item: item.nodeid)


def pytest_collection_finish() -> None:
    """Collect garbage again, but not among what was imported for the tests."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """A small project; its boxes end with the test."""
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


@pytest.fixture
def agent_box(tmp_path: Path) -> Iterator[AgentBox]:
    """An empty box with the agent on it."""
    box = AgentBox(tmp_path)
    yield box
    box.close()
