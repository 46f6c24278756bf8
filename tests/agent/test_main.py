"""The agent answers one client, in order, and lives no longer than it."""

from __future__ import annotations

import pytest

from onebox.transport.link import AgentError

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


def test_what_is_not_understood_is_refused(agent_box: AgentBox) -> None:
    """An unknown op is an error of its own, and the next request is answered."""
    with agent_box.link() as link:
        with pytest.raises(AgentError, match="no op 'dance'") as refused:
            link.ask("dance")

        assert refused.value.kind == "op"
        assert link.ask("hello")["box"] == agent_box.id
