"""The agent answers the requests of one client, in order."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from onebox.agent import protocol, server
from onebox.agent.box import BoxConfig
from onebox.remote.channel import AgentError
from tests.fakes.agent_box import AgentBox


def test_hello_returns_the_facts_about_the_box(agent_box: AgentBox) -> None:
    """`hello` returns the box's id, folders, deadline and hardware."""
    with agent_box.connect() as link:
        facts = link.request("hello")

    assert facts["box"] == agent_box.id
    assert facts["work"] == str(agent_box.work)
    assert facts["home"] == str(agent_box.home)
    assert facts["deadline"] == agent_box.config["deadline"]
    assert facts["job"] is None
    assert facts["cpus"] >= 1
    assert facts["memory"] > 0
    assert 0 < facts["disk_free"] <= facts["disk_total"]


def test_an_agent_reports_its_own_version_after_a_renewal(agent_box: AgentBox) -> None:
    """
    An agent reports its own version, even if another client has replaced its file.
    """
    with agent_box.connect() as link, agent_box.connect() as other:
        mine = link.request("hello")["agent"]
        other.request("job")
        link.begin("renew")
        link.send(b"D", b"another agent")
        link.send(b"Z")
        link.finish()

        assert other.request("hello")["agent"] == mine


def test_an_unknown_request_is_refused(agent_box: AgentBox) -> None:
    """An unknown request has its own error, and the next request is answered."""
    with agent_box.connect() as link:
        with pytest.raises(AgentError, match="no op 'dance'") as refused:
            link.request("dance")

        assert refused.value.kind == "op"
        assert link.request("hello")["box"] == agent_box.id


def test_a_bug_in_the_agent_is_reported_with_its_place(agent_box: AgentBox) -> None:
    """
    An unexpected exception is answered with its place, and does not end the connection.
    """

    def stumble(
        channel: protocol.Channel, box: BoxConfig, request: dict[str, Any]
    ) -> Any:
        return 1 // len(request["nothing"])

    near, far = os.pipe()
    with os.fdopen(near, "rb", 0), os.fdopen(far, "wb", 0):
        channel = protocol.Channel(near, far)
        request = {"op": "stumble", "nothing": []}
        server.answer(channel, str(agent_box.root), {"stumble": stumble}, request)
        kind, payload = channel.receive()

    assert kind == b"E"
    assert "ZeroDivisionError" in protocol.loads(payload)["message"]
    assert f"({Path(__file__).name}, line " in protocol.loads(payload)["message"]
