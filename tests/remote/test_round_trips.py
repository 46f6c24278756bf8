"""The number of round trips between client and box, counted on a slow connection."""

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
from onebox.transfer import fetch_outputs, push_files, verify_outputs
from tests.box_reaper import ends_with_us
from tests.conftest import Project, project
from tests.fakes.relay import Relay
from tests.fakes.sshd import SSHD, OpenSsh
from tests.providers.sshbox import Keys
from tests.remote.steps import quiet

pytestmark = pytest.mark.slow

__all__ = ["project"]

# Seconds for each direction: long enough that each end has sent all that it can
# send before it receives anything.
DELAY = 0.15
STAGE = 4
WHOLE = 30


class Stages:
    """A project and its box behind an open slow connection."""

    def __init__(self, base: Path, server: OpenSsh, link: AgentChannel) -> None:
        self.root = base / "project"
        self.root.mkdir()
        self.base = base
        self.work = server.work
        self.link = link

    def push(self) -> None:
        """Push all files."""
        paths = manifest.below(os.fsencode(self.root), b"")
        push_files.push(self.link, self.root, sorted(paths), self.base / "index", quiet)

    def fetch(self) -> None:
        """Fetch the outputs."""
        fetch_outputs.fetch(
            self.link, ["out"], self.base / "here", self.base / "memory", quiet
        )

    def verify(self) -> None:
        """Check whether the outputs are here."""
        verify_outputs.verify(
            self.link, ["out"], self.base / "here", self.base / "memory"
        )

    def run(self) -> None:
        """Run a job to its end."""
        self.link.request("start", job="j", shell="echo 1", outputs=[], cancel_grace=1)
        self.link.request("follow", job="j", offset=0)


@pytest.fixture
def stages_and_relay(tmp_path: Path) -> Iterator[tuple[Stages, Relay]]:
    """The stages, and the relay that counts their round trips."""
    if not Path(SSHD).exists():
        pytest.skip(f"no OpenSSH server: {SSHD} is missing")
    keys = Keys.make(tmp_path)
    with tempfile.TemporaryDirectory(prefix="onebox-", dir="/var/tmp") as base:
        ends_with_us(Path(base))
        server = OpenSsh(Path(base), keys)
        try:
            with Relay(server.box.port, delay=DELAY) as relay:
                box = server.at(relay.port)
                ssh = connection.SSHConnection(
                    box, tmp_path / "ssh", keys.directory / "user"
                )
                try:
                    yield Stages(tmp_path, server, ssh.channel()), relay
                finally:
                    ssh.forget()
        finally:
            server.close()


def test_each_stage_takes_at_most_four_round_trips(
    stages_and_relay: tuple[Stages, Relay],
) -> None:
    """On an open connection no stage takes more than four round trips."""
    stages, relay = stages_and_relay
    write(stages.root, 200, 1_000_000_001)
    took = {"push": round_trips(relay, stages.push)}
    took["push again"] = round_trips(relay, stages.push)
    write(stages.root, 5, 1_000_000_777)
    took["push changes"] = round_trips(relay, stages.push)
    took["run"] = round_trips(relay, stages.run)
    write(stages.work / "out", 200, 1_000_000_001)
    took["fetch"] = round_trips(relay, stages.fetch)
    took["fetch again"] = round_trips(relay, stages.fetch)
    write(stages.work / "out", 5, 1_000_000_777)
    took["fetch changes"] = round_trips(relay, stages.fetch)
    took["verify"] = round_trips(relay, stages.verify)

    assert {} == {name: count for name, count in took.items() if count > STAGE}
    assert (1, 1) == (took["push again"], took["fetch again"])


def test_inv_run_takes_at_most_30_round_trips(project: Project, tmp_path: Path) -> None:
    """`inv run` on a new box takes at most 30 round trips, with handshakes."""
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

    # The relay does not see the round trip that opens a connection.
    assert 0 < seen + connections <= WHOLE


def round_trips(relay: Relay, stage: Callable[[], None]) -> int:
    """Return how many round trips a stage takes."""
    before = relay.turns
    stage()
    return relay.turns - before


def write(folder: Path, count: int, mtime: int) -> None:
    """Write small files with an old time."""
    folder.mkdir(exist_ok=True)
    for number in range(count):
        path = folder / f"file-{number}"
        path.write_bytes(os.urandom(500))
        os.utime(path, (mtime, mtime))
