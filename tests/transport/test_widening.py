"""Transfers over several connections at once arrive as over one."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from onebox.errors import ConnectionLost
from onebox.remote.channel import AgentChannel
from onebox.transfer import fetch_outputs, parallel_connections, push_files

from .conftest import AgentBox

SIZE = 40 << 20


class Further:
    """Opens further connections to the agent's box, and remembers them."""

    def __init__(self, at: AgentBox, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("MEASURE_SECONDS", "GAIN", "WORTH_SECONDS"):
            monkeypatch.setattr(parallel_connections, name, 0.0)
        monkeypatch.setattr(parallel_connections, "FAST", float("inf"))
        self._at = at
        self.opened: list[AgentChannel] = []
        self.link = at.link()
        self.link.open_another = self.another

    def another(self) -> AgentChannel:
        """Open one more."""
        self.opened.append(self._at.link())
        return self.opened[-1]

    def slowly(self, *numbers: int) -> None:
        """Take progress, and give the connections time to be opened."""
        if sum(link.moved > 0 for link in self.opened) < parallel_connections.MOST - 1:
            time.sleep(0.1)

    def carried(self) -> list[bool]:
        """Say of each one whether data has gone over it."""
        return [link.moved > 0 for link in self.opened]


@pytest.fixture
def further(agent_box: AgentBox, monkeypatch: pytest.MonkeyPatch) -> Further:
    """Further connections that are opened at once, whatever they bring."""
    return Further(agent_box, monkeypatch)


def test_push_over_several_connections_arrives_byte_for_byte(
    further: Further, agent_box: AgentBox, tmp_path: Path
) -> None:
    """
    What is pushed over several connections is on the box, byte for byte.
    """
    data = os.urandom(SIZE)
    (tmp_path / "big").write_bytes(data)
    push_files.push(
        further.link, tmp_path, [b"big"], tmp_path / "index", further.slowly
    )

    assert data == (agent_box.work / "big").read_bytes()
    assert [True] * (parallel_connections.MOST - 1) == further.carried()
    assert [] == list((agent_box.root / "files").glob("stripe-*"))


def test_fetch_over_several_connections_arrives_byte_for_byte(
    further: Further, agent_box: AgentBox, tmp_path: Path
) -> None:
    """
    What is fetched over several connections is here, byte for byte.
    """
    data = os.urandom(SIZE)
    agent_box.work.mkdir(exist_ok=True)
    (agent_box.work / "big").write_bytes(data)
    fetch_outputs.fetch(
        further.link, ["big"], tmp_path / "here", tmp_path / "memory", further.slowly
    )

    assert data == (tmp_path / "here" / "big").read_bytes()
    assert [True] * (parallel_connections.MOST - 1) == further.carried()
    assert further.link.usable


def test_push_continues_after_a_further_connection_breaks(
    further: Further, agent_box: AgentBox, tmp_path: Path
) -> None:
    """
    A further connection that breaks breaks the transfer; the next one goes on.
    """
    data = os.urandom(SIZE)
    (tmp_path / "big").write_bytes(data)

    def cut(*numbers: int) -> None:
        further.slowly()
        if any(further.carried()):
            further.opened[0].process.kill()

    with pytest.raises(ConnectionLost):
        push_files.push(further.link, tmp_path, [b"big"], tmp_path / "index", cut)
    done = push_files.push(
        agent_box.link(), tmp_path, [b"big"], tmp_path / "index", lambda *numbers: None
    )

    assert data == (agent_box.work / "big").read_bytes()
    assert 0 < done.sent_bytes < SIZE


def test_closing_twice_ends_at_once(
    further: Further, agent_box: AgentBox, tmp_path: Path
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
