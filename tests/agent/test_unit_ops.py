"""What a client sees of units: their progress, their logs; what it may ask for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from onebox.agent import protocol
from onebox.agent.protocol import Refused
from onebox.agent.units import cpu_slots, share
from onebox.agent.units import plan as unit_plan
from onebox.agent.units import progress as unit_progress
from onebox.agent.units import result as unit_result
from onebox.agent.units.plan import Unit
from onebox.remote.channel import AgentError
from tests.agent.test_jobs import follow, run
from tests.agent.units import result, run_units, unit_log, units
from tests.fakes.agent_box import AgentBox, until

WAIT = "until [ -e go ]; do sleep 0.02; done"


def test_status_has_the_progress_while_units_run(agent_box: AgentBox) -> None:
    """The status of a job has the counts of its units, which change as they end."""
    plan = units("true", "exit 1", WAIT, "true", cpus=4096)
    with agent_box.connect() as link:
        link.request("start", job="j1", units=plan)

        def settled() -> dict[str, Any] | None:
            found = link.request("job", job="j1")["units"]
            return found if found and found["done"] + found["failed"] == 2 else None

        until(lambda: (now := settled()) and now["running"] == 1)
        now = link.request("job", job="j1")["units"]
        assert now.pop("mean") > 0
        assert now == {
            "total": 4,
            "done": 1,
            "failed": 1,
            "running": 1,
            "left": 2,
            "skipped": 0,
            "at_once": 1,
        }
        (agent_box.work / "go").touch()
        follow(link, "j1")
        assert link.request("job")["units"]["left"] == 0


def test_follow_sends_the_progress_with_the_samples(agent_box: AgentBox) -> None:
    """An interim report of `follow` has the counts beside the sample."""
    with agent_box.connect() as link:
        link.request("start", job="j1", units=units("true", WAIT))
        link.begin("follow", job="j1", offset=0)
        for kind, payload in link.frames():
            if kind == b"S":
                report = protocol.loads(payload)
                assert report["cpus"] > 0
                if report["units"] and report["units"]["done"] == 1:
                    (agent_box.work / "go").touch()
        assert kind == b"A"
        assert protocol.loads(payload)["units"]["done"] == 2


def test_a_job_without_units_has_no_progress(agent_box: AgentBox) -> None:
    """The status of an ordinary job has null for its units; so has no job."""
    with agent_box.connect() as link:
        assert link.request("job")["units"] is None
    _, end = run(agent_box, shell="true")

    assert end["units"] is None
    with agent_box.connect() as link:
        with pytest.raises(AgentError) as refused:
            link.request("unit_log", job="j1", unit=1)
        assert refused.value.kind == "unit"


def test_the_log_of_a_unit_is_sent_from_an_offset_on(agent_box: AgentBox) -> None:
    """A unit is left, running or ended; its log can be read at any time."""
    plan = units(f"echo one; {WAIT}; echo two; exit 3", "echo x", cpus=4096)
    with agent_box.connect() as link:
        link.request("start", job="j1", units=plan)
        until(lambda: unit_log(link, 1)[0] == b"one\n")
        # A unit writes its log before the pool has noted that it runs.
        until(lambda: unit_log(link, 1)[1]["state"] == "running")
        answer = {"job": "j1", "unit": 1, "state": "running", "code": None, "size": 4}
        assert unit_log(link, 1, 4) == (b"", answer)
        assert unit_log(link, 1, job=None)[1] == answer
        assert unit_log(link, 2)[1]["state"] == "left"
        (agent_box.work / "go").touch()
        follow(link, "j1")
        answer.update(state="ended", code=3, size=8)
        assert unit_log(link, 1, 4) == (b"two\n", answer)
        assert unit_log(link, 1, 1000) == (b"", answer)
        assert unit_log(link, 2)[1]["code"] == 0


def test_one_answer_has_at_most_a_mebibyte_of_a_log(agent_box: AgentBox) -> None:
    """A long log is read in parts; the answer has its whole size."""
    run_units(agent_box, units("head -c 1500000 /dev/zero"))
    with agent_box.connect() as link:
        first, answer = unit_log(link, 1)
        rest, _ = unit_log(link, 1, len(first))

    assert (len(first), len(rest)) == (1 << 20, 1_500_000 - (1 << 20))
    assert answer["size"] == 1_500_000


def test_a_stopped_unit_is_left(agent_box: AgentBox) -> None:
    """A unit that was stopped with its job is neither running nor ended."""
    with agent_box.connect() as link:
        link.request("start", job="j1", units=units("echo up; exec sleep 60"))
        until(lambda: unit_log(link, 1)[0])
        link.request("cancel", job="j1")
        log, answer = unit_log(link, 1)

    assert (log, answer["state"], answer["code"]) == (b"up\n", "left", None)


@pytest.mark.parametrize("request_", [{"unit": 3}, {"unit": "1"}, {"unit": None}, {}])
def test_an_unknown_unit_or_job_is_refused(
    agent_box: AgentBox, request_: dict[str, Any]
) -> None:
    """The log of a unit or job that is not there is refused, as is a bad offset."""
    run_units(agent_box, units("true", "true"))
    with agent_box.connect() as link:
        for more, kind in (
            (request_, "unit"),
            ({"job": "x", "unit": 1}, "job"),
            ({"unit": 1, "offset": -1}, "offset"),
            ({"unit": 1, "offset": "0"}, "offset"),
        ):
            with pytest.raises(AgentError) as refused:
                link.request("unit_log", **more)
            assert refused.value.kind == kind


INVALID: list[dict[str, Any]] = [
    {"run": ""},
    {"run": 1},
    {"run": "a\nb"},
    {"total": 0},
    {"total": 1.0},
    {"total": True},
    {"total": 100_001},
    {"cpus": 0},
    {"cpus": "4"},
    {"memory": -1},
    {"memory": None},
    {"retries": -1},
    {"names": "n"},
    {"names": ["1n"]},
    {"names": [1]},
    {"names": ["onebox_x"]},
    {"names": []},
    {"names": ["n", "n"]},
    {"units": []},
    {"units": {}},
    {"units": [1]},
    {"units": [[1, "true", "a/"]]},
    {"units": [[0, "true", "a/", ["1"]]]},
    {"units": [[3, "true", "a/", ["1"]]]},
    {"units": [[True, "true", "a/", ["1"]]]},
    {"units": [[1, "true", "a/", ["1"]], [1, "true", "b/", ["1"]]]},
    {"units": [[1, "true", "a/", ["1"]], [2, "true", "a/", ["2"]]]},
    {"units": [[1, "true", "a/b/c/", ["1"]], [2, "true", "a/", ["2"]]]},
    {"units": [[1, "", "a/", ["1"]]]},
    {"units": [[1, [], "a/", ["1"]]]},
    {"units": [[1, ["true", 1], "a/", ["1"]]]},
    {"units": [[1, None, "a/", ["1"]]]},
    {"units": [[1, "a\0b", "a/", ["1"]]]},
    {"units": [[1, "\ud800", "a/", ["1"]]]},
    {"units": [[1, "x" * 50_000, "a/", ["1"]]]},
    {"units": [[1, "true", "a", ["1"]]]},
    {"units": [[1, "true", "/a/", ["1"]]]},
    {"units": [[1, "true", "/", ["1"]]]},
    {"units": [[1, "true", "", ["1"]]]},
    {"units": [[1, "true", "../a/", ["1"]]]},
    {"units": [[1, "true", "a/../", ["1"]]]},
    {"units": [[1, "true", "a//", ["1"]]]},
    {"units": [[1, "true", "./", ["1"]]]},
    {"units": [[1, "true", 1, ["1"]]]},
    {"units": [[1, "true", "a/", []]]},
    {"units": [[1, "true", "a/", [1]]]},
    {"units": [[1, "true", "a/", "1"]]},
]


@pytest.mark.parametrize("change", INVALID, ids=lambda change: json.dumps(change)[:50])
def test_invalid_units_are_refused(change: dict[str, Any]) -> None:
    """Units that cannot be run are refused before anything starts."""
    with pytest.raises(Refused) as refused:
        unit_plan.encode({**units("true", "true"), **change})

    assert refused.value.kind == "argument"


@pytest.mark.parametrize(
    "request_",
    [
        {"units": None},
        {"units": []},
        {"units": units("true"), "shell": "true"},
        {"units": units("true"), "argv": ["true"]},
    ],
)
def test_a_request_has_either_a_command_or_units(
    agent_box: AgentBox, request_: dict[str, Any]
) -> None:
    """A request without a command, or with both, is refused and leaves no trace."""
    with agent_box.connect() as link:
        with pytest.raises(AgentError) as refused:
            link.request("start", job="j1", **request_)
        assert refused.value.kind == "argument"
        assert link.request("job")["state"] == "none"


def test_a_plan_is_read_as_it_was_requested(tmp_path: Path) -> None:
    """The stored units are one JSON value, and each of them can be read alone."""
    requested = units("a\nb é \udcff", ["x", "y z"], retries=2, cpus=3, memory=4)
    (tmp_path / unit_plan.NAME).write_bytes(unit_plan.encode(requested))
    plan = unit_plan.UnitPlan(share.Share(str(tmp_path)))
    first, second = plan.unit(0), plan.unit(1)
    plan.close()

    assert json.loads((tmp_path / unit_plan.NAME).read_bytes()) == requested
    assert len(plan) == 2
    assert first == Unit(1, "a\nb é \udcff", "results/1/", ["1"])
    assert second.text == "x 'y z'"
    assert unit_plan.find(str(tmp_path), 2) == (plan.head, second)
    assert unit_plan.find(str(tmp_path), 3) is None
    assert unit_plan.find(str(tmp_path / "none"), 1) is None


def test_damaged_progress_is_none(tmp_path: Path) -> None:
    """A file that is damaged or incomplete is treated as no progress."""
    unit_progress.prepare(str(tmp_path))
    assert unit_progress.read(str(tmp_path)) is None
    (tmp_path / unit_progress.NAME).write_text('{"total": 1}')
    assert unit_progress.read(str(tmp_path)) is None
    (tmp_path / unit_progress.NAME).write_text("{")
    assert unit_progress.read(str(tmp_path)) is None


def test_hyperthreads_of_a_core_are_next_to_each_other(tmp_path: Path) -> None:
    """CPUs are ordered by core, without those that may not be used."""
    for cpu in range(4):
        topology = tmp_path / f"cpu{cpu}" / "topology"
        topology.mkdir(parents=True)
        siblings = f"{cpu % 2},{cpu % 2 + 2}\n" if cpu else "damaged"
        (topology / "thread_siblings_list").write_text(siblings)

    assert cpu_slots.ordered({0, 1, 2, 3}, str(tmp_path)) == [0, 1, 3, 2]
    assert cpu_slots.ordered({1, 2, 5}, str(tmp_path)) == [1, 2, 5]


@pytest.mark.parametrize(
    ("log", "last"),
    [
        (b"", ""),
        (b"\n \n\t\r\n", ""),
        (b"a\nb", "b"),
        (b" 10%\r 20%\r", "20%"),
        (b"\x1b[1mx\x1b[0m\ty\n\x1b[2K\n", "x y"),
        (b"a\n" + b"z" * 9000, "z" * 200),
    ],
)
def test_the_last_line_of_a_log_has_text(tmp_path: Path, log: bytes, last: str) -> None:
    """Blank lines and the escapes of terminals are left out, a long line is cut."""
    (tmp_path / unit_result.LOG).write_bytes(b"before\n" + log)

    assert unit_result.last_line(str(tmp_path), 7) == last


def test_a_result_behind_a_link_or_too_large_counts_as_missing(
    agent_box: AgentBox,
) -> None:
    """A unit with a result that the agent has not written itself runs again."""
    run_units(agent_box, units("true", "true"))
    folder = agent_box.work / "results"
    (folder / "1/unit.json").rename(folder / "1/other")
    (folder / "1/unit.json").symlink_to("other")
    found = dict(result(agent_box, 2), more="x" * (256 << 10))
    (folder / "2/unit.json").write_text(json.dumps(found))
    _, end = run_units(agent_box, units("true", "true"), "j2")

    assert end["units"]["skipped"] == 0
    assert end["units"]["done"] == 2
