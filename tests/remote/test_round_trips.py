"""How often client and box wait for each other, counted on a long line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from onebox.agent.files import manifest
from onebox.remote import connection
from onebox.remote.channel import AgentChannel
from onebox.transfer import fetch_outputs, push_files
from tests.box_reaper import ends_with_us
from tests.conftest import Project, project
from tests.fakes.relay import Relay
from tests.fakes.sshd import SSHD, OpenSsh
from tests.providers.sshbox import Keys

__all__ = ["project"]

# Of one direction: long enough for each end to have said all that it has to say
# before it hears the other.
DELAY = 0.15
STAGE = 4
WHOLE = 30


class Stages:
    """A project and a box at the far end of an open connection."""

    def __init__(self, base: Path, server: OpenSsh, link: AgentChannel) -> None:
        self.root = base / "project"
        self.root.mkdir()
        self.base = base
        self.work = server.work
        self.link = link

    def push(self) -> None:
        """Push all that is here."""
        paths = manifest.below(os.fsencode(self.root), b"")
        push_files.push(self.link, self.root, sorted(paths), self.base / "index", quiet)

    def fetch(self) -> None:
        """Fetch the outputs."""
        fetch_outputs.fetch(
            self.link, ["out"], self.base / "here", self.base / "memory", quiet
        )

    def verify(self) -> None:
        """Ask whether they are here."""
        fetch_outputs.verify(
            self.link, ["out"], self.base / "here", self.base / "memory"
        )

    def run(self) -> None:
        """Run a job, and follow it to its end."""
        self.link.request("start", job="j", shell="echo 1", outputs=[], cancel_grace=1)
        self.link.request("follow", job="j", offset=0)


@pytest.fixture
def line(tmp_path: Path) -> Iterator[tuple[Stages, Relay]]:
    """The stages, and the line that they go over."""
    if not Path(SSHD).exists():
        pytest.skip(f"no OpenSSH server: {SSHD} is missing")
    keys = Keys.make(tmp_path)
    with tempfile.TemporaryDirectory(prefix="onebox-", dir="/var/tmp") as base:
        ends_with_us(Path(base))
        server = OpenSsh(Path(base), keys)
        try:
            with Relay(server.box.port, delay=DELAY) as relay:
                box = server.at(relay.port)
                door = connection.SSHConnection(
                    box, tmp_path / "door", keys.directory / "user"
                )
                try:
                    yield Stages(tmp_path, server, door.channel()), relay
                finally:
                    door.forget()
        finally:
            server.close()


def test_each_stage_takes_at_most_four_round_trips(line: tuple[Stages, Relay]) -> None:
    """
    On a warm connection no stage takes more than four round trips.
    """
    stages, relay = line
    write(stages.root, 200, 1_000_000_001)
    took = {"push": turns(relay, stages.push)}
    took["push again"] = turns(relay, stages.push)
    write(stages.root, 5, 1_000_000_777)
    took["push changes"] = turns(relay, stages.push)
    took["run"] = turns(relay, stages.run)
    write(stages.work / "out", 200, 1_000_000_001)
    took["fetch"] = turns(relay, stages.fetch)
    took["fetch again"] = turns(relay, stages.fetch)
    write(stages.work / "out", 5, 1_000_000_777)
    took["fetch changes"] = turns(relay, stages.fetch)
    took["verify"] = turns(relay, stages.verify)

    assert {} == {name: count for name, count in took.items() if count > STAGE}
    assert (1, 1) == (took["push again"], took["fetch again"])


def test_inv_run_takes_at_most_30_round_trips(project: Project, tmp_path: Path) -> None:
    """
    `inv run` on a fresh box takes at most 30 round trips, handshakes included.
    """
    for count in range(50):
        project.write(f"file-{count}", os.urandom(1000))
    report = tmp_path / "report"
    command = [sys.executable, "-m", "tests.fakes.far", str(report), str(DELAY)]
    here = str(Path(__file__).parents[2])
    done = subprocess.run(
        [*command, "run"],
        cwd=project.root,
        env={**project.environ, "PYTHONPATH": here},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    assert "42\n" == project.read("results/answer.txt")
    connections, seen = json.loads(report.read_text())

    # That a connection is made at all takes one that the relay does not see.
    assert 0 < seen + connections <= WHOLE


def turns(relay: Relay, stage: Callable[[], None]) -> int:
    """Return how many round trips a stage takes."""
    before = relay.turns
    stage()
    return relay.turns - before


def quiet(*numbers: int) -> None:
    """Take progress and say nothing."""


def write(folder: Path, count: int, mtime: int) -> None:
    """Write small files that have not just been written."""
    folder.mkdir(exist_ok=True)
    for number in range(count):
        path = folder / f"file-{number}"
        path.write_bytes(os.urandom(500))
        os.utime(path, (mtime, mtime))
