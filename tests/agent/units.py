"""Requests and results of units that the tests of the agent share."""

from __future__ import annotations

import json
from typing import Any

from onebox.remote.channel import AgentChannel
from tests.agent.test_jobs import follow
from tests.fakes.agent_box import AgentBox


def units(*commands: str | list[str], **changes: Any) -> dict[str, Any]:
    """Return the `units` of a request: one for each command, with its number in n."""
    listed = [
        [number, command, f"results/{number}/", [str(number)]]
        for number, command in enumerate(commands, 1)
    ]
    head = {"run": "r1", "total": len(listed), "cpus": 1, "memory": 0, "retries": 0}
    return {**head, "names": ["n"], "units": listed, **changes}


def run_units(
    box: AgentBox, requested: dict[str, Any], job: str = "j1", **request: Any
) -> tuple[str, dict[str, Any]]:
    """Run a job with units to its end; return its log and the last answer."""
    with box.connect() as link:
        link.request("start", job=job, units=requested, **request)
        log, end = follow(link, job)
    return log.decode(), end


def result(box: AgentBox, number: int) -> dict[str, Any]:
    """Return the result of a unit."""
    path = box.work / "results" / str(number) / "unit.json"
    found = json.loads(path.read_text())
    assert isinstance(found, dict)
    return found


def has_result(box: AgentBox, number: int) -> bool:
    """Return whether a unit has a result."""
    return (box.work / "results" / str(number) / "unit.json").exists()


def unit_log(
    link: AgentChannel, number: int, offset: int = 0, job: str | None = "j1"
) -> tuple[bytes, dict[str, Any]]:
    """Return the part of a unit's log from an offset on, and the answer."""
    log = b""
    link.begin("unit_log", job=job, unit=number, offset=offset)
    for kind, payload in link.frames():
        if kind == b"D":
            log += payload
        elif kind == b"A":
            return log, json.loads(payload)
    raise AssertionError("no answer")
