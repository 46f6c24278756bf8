"""The agent answers one client, in order, and lives no longer than it."""

from __future__ import annotations

import os
from typing import Any

import pytest

from onebox.agent import protocol, server
from onebox.agent.box import Box
from onebox.remote.channel import AgentError

from .conftest import AgentBox


def test_hello_tells_what_the_box_is(agent_box: AgentBox) -> None:
    """A first request returns the box's name, places, clocks and sizes."""
    with agent_box.link() as link:
        told = link.ask("hello")

    assert told["box"] == agent_box.id
    assert told["work"] == str(agent_box.work)
    assert told["home"] == str(agent_box.home)
    assert told["deadline"] == agent_box.told["deadline"]
    assert told["job"] is None
    assert told["cpus"] >= 1
    assert told["memory"] > 0
    assert 0 < told["disk_free"] <= told["disk_total"]


def test_an_agent_that_is_renewed_by_somebody_else(agent_box: AgentBox) -> None:
    """An agent names what it is itself, not what another client has put there."""
    with agent_box.link() as link, agent_box.link() as other:
        mine = link.ask("hello")["agent"]
        other.ask("job")
        link.begin("renew")
        link.send(b"D", b"another agent")
        link.send(b"Z")
        link.finish()

        assert other.ask("hello")["agent"] == mine


def test_what_is_not_understood_is_refused(agent_box: AgentBox) -> None:
    """An unknown op is an error of its own, and the next request is answered."""
    with agent_box.link() as link:
        with pytest.raises(AgentError, match="no op 'dance'") as refused:
            link.ask("dance")

        assert refused.value.kind == "op"
        assert link.ask("hello")["box"] == agent_box.id


def test_a_mistake_of_its_own_is_named(agent_box: AgentBox) -> None:
    """What nobody has foreseen ends the request, with its place, not the line."""

    def stumble(channel: protocol.Channel, at: Box, request: dict[str, Any]) -> Any:
        return 1 // len(request["nothing"])

    near, far = os.pipe()
    with os.fdopen(near, "rb", 0), os.fdopen(far, "wb", 0):
        channel = protocol.Channel(near, far)
        request = {"op": "stumble", "nothing": []}
        server.answer(channel, str(agent_box.root), {"stumble": stumble}, request)
        kind, payload = channel.receive()

    assert kind == b"E"
    assert "ZeroDivisionError" in protocol.loads(payload)["message"]
    assert "(test_main.py, line " in protocol.loads(payload)["message"]
