"""`inv map --boxes=N`: the units of a sweep on several boxes side by side."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from onebox.boxes import offers
from onebox.context import BoxContext
from onebox.errors import Unsuitable
from onebox.invocation import Invocation
from onebox.providers.values import Offer
from onebox.stages import map_boxes
from tests.conftest import Project
from tests.system.test_map import FIT, MAP, states, wait_for


@pytest.fixture
def sweep(project: Project) -> Project:
    """A project with six units, of which the fourth fails as long as `fixed` lacks."""
    project.write("onebox.toml", MAP)
    project.write("fit.sh", FIT)
    return project


def children(pid: int) -> list[int]:
    """Return the pids of the child processes of a process."""
    done = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, check=False
    )
    return [int(word) for word in done.stdout.split()]


def test_units_are_dealt_to_boxes_that_go_away(sweep: Project) -> None:
    """Each box has its own lines and exit code; the table has all units."""
    sweep.write("fixed", "")
    done = sweep.inv("map", "--boxes=2")

    assert 0 == done.code, done.err
    assert ["done"] * 6 == states(sweep)
    assert "main-1" in done.err
    assert "main-2" in done.err
    assert "3 of 3 done" in done.err
    assert "6 of 6 done" in done.err
    assert "main-2: 3 units" in done.out
    assert [] == sweep.boxes()


def test_failed_units_of_all_boxes_run_again_on_one(sweep: Project) -> None:
    """The sweep is one, whatever its boxes were."""
    done = sweep.inv("map", "--boxes=3")
    before = sweep.read("results/1/starts")
    log = sweep.inv("logs", "--unit=4")
    sweep.write("fixed", "")
    again = sweep.inv("map", "--failed")

    assert 1 == done.code
    assert "5 of 6 done, 1 failed" in done.err
    assert 7 == log.code
    assert 0 == again.code, again.err
    assert ["done"] * 6 == states(sweep)
    assert before == sweep.read("results/1/starts")


def test_more_boxes_than_units(sweep: Project) -> None:
    """No box is created without a unit."""
    sweep.write("fixed", "")
    done = sweep.inv("map", "--boxes=5", "--limit=2")

    assert 0 == done.code, done.err
    assert "main-2" in done.err
    assert "main-3" not in done.err
    assert ["done", "done", "left"] == states(sweep)[:3]


@pytest.mark.parametrize("boxes", ["0", "11", "x", "-1"])
def test_wrong_number_of_boxes(sweep: Project, boxes: str) -> None:
    """The message has the limit, and what is for more."""
    done = sweep.inv("map", f"--boxes={boxes}")

    assert 64 == done.code
    assert "--boxes" in done.err
    assert [] == sweep.boxes()


@pytest.mark.parametrize("flag", ["--detach", "--queue", "--only"])
def test_flag_that_needs_one_box_is_refused(sweep: Project, flag: str) -> None:
    """Each box has a process that stays."""
    done = sweep.inv("map", "--boxes=2", flag)

    assert 64 == done.code
    assert flag in done.err


def test_interrupt_detaches_from_all_boxes(sweep: Project) -> None:
    """The units continue; each box can be followed by its name."""
    sweep.write("fixed", "")
    sweep.write("fit.sh", FIT + "[ -e go ] || sleep 3\n")
    line = sweep.start("map", "--boxes=2")
    wait_for(sweep, "results/1/starts")
    wait_for(sweep, "results/2/starts")
    line.send_signal(signal.SIGINT)

    assert 130 == line.wait(60)
    assert "inv logs --name=main-2" in sweep.err
    assert 2 == len(sweep.boxes())
    for name in ("main-1", "main-2"):
        assert 0 == sweep.inv("logs", f"--name={name}").code
        done = sweep.inv("fetch", "teardown", f"--name={name}")
        assert 0 == done.code, done.err
    assert 0 == sweep.inv("map", "--failed").code
    assert ["done"] * 6 == states(sweep)


def test_box_that_dies_is_that_runs_failure(sweep: Project) -> None:
    """The others go on, and `--failed` runs its units."""
    sweep.write("fixed", "")
    sweep.write("fit.sh", FIT + "sleep 1\n")
    line = sweep.start("map", "--boxes=2")
    wait_for(sweep, "results/1/starts")
    wait_for(sweep, "results/2/starts")
    (first, *_) = sorted(
        pid for pid in children(line.pid) if b"main-1" in _command(pid)
    )
    os.kill(first, signal.SIGKILL)
    code = line.wait(120)

    assert 137 == code
    assert "main-1" in sweep.err
    assert {"done", "left"} == set(states(sweep))
    end = time.monotonic() + 60
    while sweep.inv("status", "--name=main-1").out.count("running 1"):
        assert time.monotonic() < end
    assert 0 == sweep.inv("logs", "--name=main-1").code
    assert 0 == sweep.inv("fetch", "teardown", "--name=main-1").code
    done = sweep.inv("map", "--failed")
    assert 0 == done.code, done.err
    assert ["done"] * 6 == states(sweep)
    assert [] == sweep.boxes()


def _command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def test_max_cost_is_that_of_all_boxes(
    sweep: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two boxes may cost more than one, and are refused before one is created."""
    line = Invocation("inv map", ("map",))
    flags = {"limits.max_cost": 20.0, "limits.max_hours": 8.0}
    context = BoxContext.open(str(sweep.root), sweep.environ, flags, line)
    offer = Offer("large", "big", 64, 1 << 38, 2.0, 2.0)
    monkeypatch.setattr(offers, "find", lambda context: [offer])

    assert "at most $16.00 in total" in map_boxes.total_price(context, 1)
    with pytest.raises(Unsuitable, match=r"2 boxes of big could cost \$32"):
        map_boxes.total_price(context, 2)


def test_plan_says_how_units_are_dealt(sweep: Project) -> None:
    """It creates nothing."""
    plan = sweep.inv("plan", "map", "--boxes=2")

    assert 0 == plan.code, plan.err
    assert "dealt to 2 boxes" in plan.out
    assert [] == sweep.boxes()
