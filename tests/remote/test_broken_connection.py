"""Pushes, fetches and logs are complete although the connection breaks."""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import signal
import stat
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from onebox.agent import protocol
from onebox.context import BoxContext
from onebox.errors import (
    ConnectionLost,
)
from onebox.jobs import remote_job
from onebox.providers.values import Box
from onebox.remote import connection
from onebox.remote.channel import AgentChannel
from onebox.transfer import fetch_outputs, push_files
from tests.fakes.relay import Relay
from tests.fakes.sshd import OpenSsh, Server
from tests.remote.steps import OpenDoor, needs_sshd, quiet, run, start_job, write_files

# In each of three tests, for each of two servers.
CUTS = 6


def test_push_over_a_breaking_connection_makes_both_sides_equal(
    server: Server, ssh: connection.SSHConnection, relay: Relay, tmp_path: Path
) -> None:
    """However often a push is cut, the box has exactly our files in the end."""
    chance = seeded()
    root = tmp_path / "project"
    paths = write_files(root, chance)
    relay.cuts = [chance.randint(1, 400_000) for _ in range(CUTS)]
    done = retry_after_cuts(
        ssh,
        lambda link: push_files.push(link, root, paths, tmp_path / "index", quiet),
    )
    assert relay.was_cut == CUTS
    assert modes_and_contents(server.work) == modes_and_contents(root)
    assert done.files == len(paths)


def test_fetch_over_a_breaking_connection_makes_both_sides_equal(
    server: Server, ssh: connection.SSHConnection, relay: Relay, tmp_path: Path
) -> None:
    """However often a fetch is cut, we have exactly the box's files in the end."""
    chance = seeded()
    write_files(server.work / "out", chance)
    relay.cuts = [chance.randint(1, 400_000) for _ in range(CUTS)]
    into, memory = tmp_path / "into", tmp_path / "into" / ".onebox"
    retry_after_cuts(
        ssh, lambda link: fetch_outputs.fetch(link, ["out"], into, memory, quiet)
    )
    assert relay.was_cut == CUTS
    assert modes_and_contents(into / "out") == modes_and_contents(server.work / "out")


def test_log_over_a_breaking_connection_is_complete(
    server: Server,
    ssh: connection.SSHConnection,
    relay: Relay,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However often the connection is cut, no byte of the log is lost or repeated."""
    chance = seeded()
    monkeypatch.setattr(remote_job, "LONGEST_PAUSE", 0.01)
    text = chance.randbytes(8_000_000)
    (server.work / "text").write_bytes(text)
    start_job(ssh, "j-1", "cat text; exit 7")
    ssh.close(force=True)
    relay.cuts = [chance.randint(1, 1_000_000) for _ in range(CUTS)]
    shown = bytearray()
    line = Attached(ssh)
    log = tmp_path / "logs" / "j-1.log"
    record = remote_job.follow(
        cast(BoxContext, line), ssh.box, "j-1", log, shown.extend
    )
    assert (record.code, relay.was_cut, line.breaks) == (7, CUTS, CUTS)
    assert log.read_bytes() == text
    assert bytes(shown) == text


def test_follow_reconnects_if_the_agent_hangs(
    server: Server,
    ssh: connection.SSHConnection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An agent that becomes silent is not waited for forever, even if ssh works."""
    monkeypatch.setattr(remote_job, "SILENCE_SECONDS", 2.0)
    start_job(ssh, "j-1", "echo up; sleep 3; echo end")
    frozen: list[int] = []

    def freeze(data: bytes) -> None:
        if not frozen:
            frozen.extend(serving_agents(server))
            for pid in frozen:
                os.kill(pid, signal.SIGSTOP)

    line = Attached(ssh)
    try:
        record = remote_job.follow(
            cast(BoxContext, line), ssh.box, "j-1", tmp_path / "log", freeze
        )
    finally:
        for pid in frozen:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    assert (record.code, line.breaks) == (0, 1)
    assert (tmp_path / "log").read_text() == "up\nend\n"


def serving_agents(server: Server) -> list[int]:
    """
    Return the pids of the box's agents that serve a client.

    A job's supervisor has the same command line, but no client.
    """
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            # Behind the words of a forked agent there are further zeros.
            words = (path / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
            mine = words[-2:] == [os.fsencode(server.pyz), b"serve"]
            if mine and str((path / "fd" / "0").readlink()) != os.devnull:
                found.append(int(path.name))
    return found


@needs_sshd
def test_resuming_counts_breaks_without_progress(
    sshd: OpenSsh, open_ssh: OpenDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Resuming fails after several breaks in a row without progress."""
    ssh = open_ssh(sshd.box)
    monkeypatch.setattr(connection, "LONGEST_PAUSE", 0.01)
    breaks: list[int] = []
    moved = [10, connection.PROGRESS_BYTES, connection.PROGRESS_BYTES] + [10] * 9

    def step(link: AgentChannel) -> None:
        link.moved = moved[len(breaks)]
        raise ConnectionLost("cut")

    with pytest.raises(ConnectionLost):
        ssh.call_resuming(step, lambda error, attempt: breaks.append(attempt))
    assert breaks == [1, 1, 1, 2, 3, 4, 5]


def test_log_is_followed_live_over_a_slow_connection(
    server: Server, ssh: connection.SSHConnection, relay: Relay
) -> None:
    """
    With 30 ms in each direction, each line arrives while the job waits, then the
    end.
    """
    relay.delay = 0.03
    wait = "while [ ! -e go-$n ]; do sleep 0.05; done"
    start_job(ssh, "j-1", f"for n in 1 2 3; do echo $n; {wait}; done")
    link = ssh.channel()
    link.begin("follow", job="j-1", offset=0)
    came = []
    for kind, payload in link.frames(within=60):
        if kind == b"D":
            came.append(payload)
            # The job does not write the next line before this one has arrived.
            (server.work / f"go-{len(came)}").touch()
    assert came == [b"1\n", b"2\n", b"3\n"]
    assert protocol.loads(payload)["record"]["code"] == 0


def test_steps_on_an_open_connection_take_no_extra_round_trip(
    server: Server, ssh: connection.SSHConnection, relay: Relay, tmp_path: Path
) -> None:
    """On an open connection no step takes more round trips than it needs."""
    root = tmp_path / "project"
    paths = write_files(root, random.Random(1), files=20)
    index, into = tmp_path / "index", tmp_path / "into"
    link = ssh.channel()
    push_files.push(link, root, paths, index, quiet)
    (server.work / "out").mkdir()
    names = (f"j-{number}" for number in range(100))
    steps: dict[str, Callable[[], object]] = {
        "hello": lambda: link.request("hello"),
        "push": lambda: push_files.push(link, root, paths, index, quiet),
        "run": lambda: run(link, next(names)),
        "fetch": lambda: fetch_outputs.fetch(
            link, ["out"], into, into / ".onebox", quiet
        ),
        "open": lambda: reopen(ssh).request("hello"),
    }
    relay.delay = 0.025
    # "open" is the last step, because it closes the channel of the others.
    trips = {name: fewest_round_trips(relay, step) for name, step in steps.items()}
    most = {"hello": 1, "push": 1, "run": 2, "fetch": 1, "open": 5}
    assert {name: n for name, n in trips.items() if n > most[name]} == {}


class Attached:
    """The parts of a BoxContext that `remote_job.follow` uses."""

    def __init__(self, ssh: connection.SSHConnection) -> None:
        self._ssh = ssh
        self.screen = self.boxes = self
        self.settings = SimpleNamespace(limits=SimpleNamespace(max_log=5 << 30))
        self.breaks = 0
        self.chain = SimpleNamespace(stage="")

    def ssh(self, box: Box) -> connection.SSHConnection:
        """Return the connection to the box."""
        return self._ssh

    def check_runs(self, box: Box) -> None:
        """Report the box as running; each call follows a broken connection."""
        self.breaks += 1

    def note(self, text: str) -> None:
        """Print nothing."""


def seeded() -> random.Random:
    """Return a random generator; a failure shows its seed."""
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    return random.Random(seed)


def modes_and_contents(root: Path) -> dict[bytes, tuple[int, bytes]]:
    """Return the modes and contents of all files below a folder."""
    return {
        os.fsencode(path.relative_to(root)): (
            stat.S_IMODE(path.stat().st_mode),
            path.read_bytes(),
        )
        for path in root.rglob("*")
        if path.is_file()
    }


def retry_after_cuts(
    ssh: connection.SSHConnection, step: Callable[[AgentChannel], Any]
) -> Any:
    """Repeat a step after each break, at most once for each cut of the relay."""
    for _ in range(CUTS + 1):
        try:
            return step(ssh.channel())
        except ConnectionLost:
            ssh.close(force=True)
    raise AssertionError("the connection broke without a cut")


def fewest_round_trips(relay: Relay, step: Callable[[], object]) -> int:
    """Return how many round trips a step needs; a busy machine may add some."""
    turns = []
    for _ in range(4):
        before = relay.turns
        step()
        turns.append(relay.turns - before)
    return min(turns)


def reopen(ssh: connection.SSHConnection) -> AgentChannel:
    """Return a new channel over the shared connection."""
    ssh.close()
    return ssh.channel()
