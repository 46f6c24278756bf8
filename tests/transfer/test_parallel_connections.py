"""A transfer over several connections has the same result as over one."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from onebox.errors import ConnectionLost
from onebox.remote.channel import AgentChannel
from onebox.transfer import fetch_outputs, parallel_connections, push_files
from tests.fakes.agent_box import AgentBox

SIZE = 40 << 20


class ConnectionOpener:
    """Opens further connections to the agent's box, and records them."""

    def __init__(self, at: AgentBox, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("MEASURE_SECONDS", "GAIN", "WORTH_SECONDS"):
            monkeypatch.setattr(parallel_connections, name, 0.0)
        monkeypatch.setattr(parallel_connections, "FAST", float("inf"))
        self._at = at
        self.opened: list[AgentChannel] = []
        self.link = at.connect()
        self.link.open_another = self.another

    def another(self) -> AgentChannel:
        """Open one more connection."""
        self.opened.append(self._at.connect())
        return self.opened[-1]

    def wait_for_connections(self, *numbers: int) -> None:
        """Accept progress, and wait until the connections are open."""
        if sum(link.moved > 0 for link in self.opened) < parallel_connections.MOST - 1:
            time.sleep(0.1)

    def carried_data(self) -> list[bool]:
        """Return for each connection whether data were sent over it."""
        return [link.moved > 0 for link in self.opened]


@pytest.fixture
def further(agent_box: AgentBox, monkeypatch: pytest.MonkeyPatch) -> ConnectionOpener:
    """Further connections that are opened at once, whatever rate they add."""
    return ConnectionOpener(agent_box, monkeypatch)


def test_push_over_several_connections_arrives_byte_for_byte(
    further: ConnectionOpener, agent_box: AgentBox, tmp_path: Path
) -> None:
    """Files pushed over several connections arrive byte for byte."""
    data = os.urandom(SIZE)
    (tmp_path / "big").write_bytes(data)
    push_files.push(
        further.link,
        tmp_path,
        [b"big"],
        tmp_path / "index",
        further.wait_for_connections,
    )

    assert data == (agent_box.work / "big").read_bytes()
    assert [True] * (parallel_connections.MOST - 1) == further.carried_data()
    assert [] == list((agent_box.root / "files").glob("stripe-*"))


def test_fetch_over_several_connections_arrives_byte_for_byte(
    further: ConnectionOpener, agent_box: AgentBox, tmp_path: Path
) -> None:
    """Files fetched over several connections arrive byte for byte."""
    data = os.urandom(SIZE)
    agent_box.work.mkdir(exist_ok=True)
    (agent_box.work / "big").write_bytes(data)
    fetch_outputs.fetch(
        further.link,
        ["big"],
        tmp_path / "here",
        tmp_path / "memory",
        further.wait_for_connections,
    )

    assert data == (tmp_path / "here" / "big").read_bytes()
    assert [True] * (parallel_connections.MOST - 1) == further.carried_data()
    assert further.link.usable


def test_push_continues_after_a_further_connection_breaks(
    further: ConnectionOpener, agent_box: AgentBox, tmp_path: Path
) -> None:
    """A further connection that breaks ends the transfer; the next one continues it."""
    data = os.urandom(SIZE)
    (tmp_path / "big").write_bytes(data)

    def cut(*numbers: int) -> None:
        further.wait_for_connections()
        if any(further.carried_data()):
            further.opened[0].process.kill()

    with pytest.raises(ConnectionLost):
        push_files.push(further.link, tmp_path, [b"big"], tmp_path / "index", cut)
    done = push_files.push(
        agent_box.connect(),
        tmp_path,
        [b"big"],
        tmp_path / "index",
        lambda *numbers: None,
    )

    assert data == (agent_box.work / "big").read_bytes()
    assert 0 < done.sent_bytes < SIZE


def test_closing_twice_ends_at_once(
    further: ConnectionOpener, agent_box: AgentBox, tmp_path: Path
) -> None:
    """
    A second close does nothing and does not wait.
    """
    wide = parallel_connections.ParallelConnections(further.link)
    wide.close()
    second = threading.Thread(target=wide.close, daemon=True)
    second.start()
    second.join(60)

    assert not second.is_alive()
