"""`inv map --boxes=N`: the units of one call on several boxes side by side."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from onebox.boxes import offers
from onebox.context import BoxContext
from onebox.errors import Unsuitable
from onebox.invocation import Invocation
from onebox.providers.values import Offer
from onebox.stages import deal
from tests.conftest import Project
from tests.system.test_map import FIT, MAP, states, wait_for

# A unit that waits for the file `go`, which `release` writes.
WAIT = FIT + "while [ ! -e go ]; do sleep 0.1; done\n"
# The files of a project whose tasks are those of the program `inv -c jobs`, with names
# of their own, and which has settings in Invoke's configuration only.
OWN_NAMES = """\
from invoke import Collection
import onebox

ns = Collection(box=onebox.ns)
units = {"command": "echo {n} $TAG", "over": {"n": ["a", "b"]}}
ns.configure({"onebox": {"map": units}})
"""


@pytest.fixture
def sweep(project: Project) -> Project:
    """A project with six units, of which the fourth fails as long as `fixed` lacks."""
    project.write("onebox.toml", MAP)
    project.write("fit.sh", FIT)
    return project


def starts(project: Project) -> list[int]:
    """Return how often each unit has started, by the files that were fetched."""
    return [project.read(f"results/{n}/starts").count("\n") for n in range(1, 7)]


def release(project: Project) -> None:
    """Let the units on all boxes end."""
    for work in Path(project.environ["ONEBOX_LOCAL_ROOT"]).glob(
        "boxes/*/disk/home/work"
    ):
        (work / "go").touch()


def children(pid: int) -> list[int]:
    """Return the processes of boxes that a line has started and that run."""
    done = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(pid)],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    return [int(child) for child, args in lines if "onebox.part_process" in args]


def wait_until_free(project: Project, name: str) -> None:
    """Wait until the job of a box has ended."""
    assert project.inv("logs", f"--name={name}").code in (0, 1)


def test_units_are_dealt_to_boxes_that_go_away(sweep: Project) -> None:
    """Each box has its own lines, price, receipt and teardown; the table has all."""
    sweep.write("fixed", "")
    done = sweep.inv("map", "--boxes=2", "--into=out/here")

    assert 0 == done.code, done.err
    table = sweep.read("out/here/results/units.csv")
    assert 6 == table.count(",done,")
    for name in ("main-1", "main-2"):
        lines = [line for line in done.err.splitlines() if line.startswith(name)]
        assert all(
            any(stage in line for line in lines)
            for stage in ("provision", "push", "map", "fetch", "teardown")
        )
        assert any("3 of 3 units done" in line and "exit 0" in line for line in lines)
        assert any("powers itself off" in line for line in lines)
    assert "main-1 … main-2" in done.err
    assert "6 of 6 done" in done.err
    assert 2 == len([*sweep.root.glob(".onebox/jobs/*/receipt.json")])
    assert [] == sweep.boxes()


def test_failed_units_of_a_typed_call_run_again_without_typing(
    sweep: Project,
) -> None:
    """The boxes get the units as they were made, not the flags."""
    sweep.write("bad", "")
    command = 'test "$n" != 2 || [ ! -e bad ]; echo {n} {k}'
    line = ["map", "--boxes=2", "--over=n=1..3", "--over=seed=1", "--over=alpha=0"]
    done = sweep.inv(*line, "--over=k=x y", "--", "sh", "-ec", command)
    (sweep.root / "bad").unlink()
    again = sweep.inv("map", "--failed", "--boxes=2")

    assert 1 == done.code, done.err
    assert "2 of 3 done, 1 failed" in done.err
    assert 0 == again.code, again.err
    assert ["done"] * 3 == states(sweep)
    assert "2 x y\n" == sweep.read("results/2/unit.log")
    assert not list(sweep.root.glob("results/*/*~"))


def test_boxes_have_the_settings_and_names_of_the_line(sweep: Project) -> None:
    """Invoke's configuration, its options and the project's own names are kept."""
    (sweep.root / "onebox.toml").unlink()
    (sweep.root / "tasks.py").unlink()
    sweep.write("elsewhere/jobs.py", OWN_NAMES)
    sweep.write("more.yaml", "onebox:\n  run:\n    env:\n      TAG: from-f\n")
    words = ["-r", "elsewhere", "-c", "jobs", "-f", str(sweep.root / "more.yaml")]
    done = sweep.inv(*words, "box.map", "--boxes=2", "--keep")

    assert 0 == done.code, done.err
    found = sorted((sweep.root / "elsewhere").glob("results/*/unit.log"))
    assert ["a from-f\n", "b from-f\n"] == [path.read_text() for path in found]
    assert "inv box.teardown --name=main-2" in done.err
    gone = sweep.inv(*words, "box.teardown", "--all")
    assert 0 == gone.code, gone.err


def test_interrupt_detaches_all_and_nothing_runs_twice(sweep: Project) -> None:
    """While boxes run, their units do not run again; then they are fetched."""
    sweep.write("fixed", "")
    sweep.write("fit.sh", WAIT)
    line = sweep.start("map", "--boxes=2")
    for unit in (1, 2):
        wait_for(sweep, f"results/{unit}/starts")
    # A terminal sends it to all processes of the line.
    os.killpg(line.pid, signal.SIGINT)
    assert 130 == line.wait(60)
    left = sweep.err
    log = sweep.inv("logs", "--unit=2", "--no-follow")
    refused = [
        sweep.inv(*words)
        for words in (["map"], ["map", "--failed"], ["map", "--boxes=2", "--again"])
    ]
    plan = sweep.inv("plan", "map", "--boxes=2")
    status = sweep.inv("status")
    by_name = sweep.inv("logs", "--unit=1", "--name=main-1", "--no-follow")

    assert "detached; 2 boxes continue" in left
    assert "inv logs --name=main-1" in left
    assert "seed 1 alpha 10 unit 2 of 6" in log.out
    assert "seed 1 alpha 0.1 unit 1 of 6" in by_name.out
    for done in (*refused, plan):
        assert 75 == done.code, done.err
        assert "main-1, main-2" in done.err
        assert "an earlier call of map\n" in done.err
        assert "inv logs --name=main-1" in done.err
    assert "main-1" in status.out
    assert "main-2" in status.out
    release(sweep)
    for name in ("main-1", "main-2"):
        wait_until_free(sweep, name)
    plans = [sweep.inv("plan", "map", *flags) for flags in ((), ("--boxes=2",))]
    done = sweep.inv("map")

    for plan in plans:
        assert 0 == plan.code, plan.err
        assert "the outputs on main-1, main-2 are fetched first" in plan.out
        assert "6 units" not in plan.out
        assert "sh fit.sh" not in plan.out
    assert 0 == done.code, done.err
    assert "has done all units" in done.err
    assert ["done"] * 6 == states(sweep)
    assert [1] * 6 == starts(sweep)
    assert [] == sweep.boxes()


def test_boxes_of_a_detached_call_are_named_and_no_older_log_is_shown(
    sweep: Project,
) -> None:
    """The box of the line's own name does not exist, and has an older job's log."""
    assert 1 == sweep.inv("map").code
    sweep.write("fit.sh", WAIT)
    line = sweep.start("map", "--boxes=2", "--again")
    for unit in (1, 2):
        wait_for(sweep, f"results/{unit}/starts")
    os.killpg(line.pid, signal.SIGINT)
    assert 130 == line.wait(60)
    logs = sweep.inv("logs")
    fetch = sweep.inv("fetch", "teardown")
    gone = sweep.inv("teardown", "--all", "--discard-outputs", "--yes")
    after = sweep.inv("logs")

    assert 0 == gone.code, gone.err
    for done in (logs, after):
        assert 64 == done.code, done.err
        assert "main-1, main-2" in done.err
        assert "inv logs --name=main-1" in done.err
        assert "inv logs --name=main-2" in done.err
        assert "unit 1 of 6" not in done.out
    assert "census/main-2 is up" in logs.err
    assert "is up" not in after.err
    assert 0 == fetch.code, fetch.err
    assert "census/main-1 is up" in fetch.err
    assert "no box is up" not in fetch.err


def test_second_interrupt_exits_at_once(sweep: Project) -> None:
    """The boxes are named, and no process of the line stays."""
    sweep.write("fit.sh", WAIT)
    line = sweep.start("map", "--boxes=2")
    for unit in (1, 2):
        wait_for(sweep, f"results/{unit}/starts")
    pids = children(line.pid)
    for pid in pids:
        # They cannot detach now.
        os.kill(pid, signal.SIGSTOP)
    line.send_signal(signal.SIGINT)
    sweep.until("Ctrl-C again exits at once")
    time.sleep(0.3)
    line.send_signal(signal.SIGINT)
    code = line.wait(60)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)

    assert 130 == code
    assert 2 == len(pids)
    assert "main-2: ob-" in sweep.err
    end = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert 2 == len(sweep.boxes())


def test_killed_process_of_a_box_is_that_runs_failure(sweep: Project) -> None:
    """The other box goes on; the line fails, and the next one runs what is left."""
    sweep.write("fixed", "")
    sweep.write("fit.sh", FIT + '[ "$ONEBOX_UNIT" != 5 ] || sleep 600\n')
    line = sweep.start("map", "--boxes=2")
    wait_for(sweep, "results/5/starts")
    wait_for(sweep, "results/3/unit.json")
    pids = children(line.pid)
    (first,) = [pid for pid in pids if "main-1" in locked_boxes(pid)]
    (box,) = Path(sweep.environ["ONEBOX_LOCAL_ROOT"]).glob("**/work/results/1/starts")
    before = box.read_text()
    os.kill(first, signal.SIGKILL)
    code = line.wait(120)

    assert 137 == code
    assert "main-1 (exit 137)" in sweep.err
    assert {"done", "left"} == set(states(sweep))
    assert 0 == sweep.inv("cancel", "--name=main-1").code
    sweep.write("fit.sh", FIT)
    done = sweep.inv("map", "--failed", "--boxes=2")
    assert 0 == done.code, done.err
    assert ["done"] * 6 == states(sweep)
    assert before == sweep.read("results/1/starts")
    assert [] == sweep.boxes()


def locked_boxes(pid: int) -> str:
    """Return the names of the boxes that a process has locked, as one text."""
    links = (str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir())
    return " ".join(link for link in links if link.endswith("/lock"))


@pytest.mark.parametrize("too", ["parent", "all"])
def test_killed_line_loses_no_unit_and_reports_none_twice(
    sweep: Project, too: str
) -> None:
    """The call is stored before it starts, so the next line goes on with it."""
    sweep.write("fixed", "")
    line = sweep.start("map", "--boxes=3")
    end = time.monotonic() + 60
    while not list(sweep.root.glob(".onebox/sweeps/*/units-job.json")):
        assert time.monotonic() < end
        time.sleep(0.005)
    pids = children(line.pid)
    line.kill()
    line.wait()
    for pid in pids if too == "all" else ():
        os.kill(pid, signal.SIGKILL)
    while True:
        done = sweep.inv("map", "--boxes=2")
        if done.code != 75:
            break
        # Processes that were not killed go on, and remove their boxes.
        assert "main-" in done.err
        assert time.monotonic() < end + 60
        time.sleep(0.5)

    assert 0 == done.code, done.err
    assert "goes on" in done.err or "all units" in done.err
    assert ["done"] * 6 == states(sweep)
    assert [1] * 6 == starts(sweep)
    assert [] == sweep.boxes()


@pytest.mark.skipif(sys.version_info < (3, 10), reason="sys.orig_argv is of 3.10")
def test_box_is_locked_before_its_process_has_begun(
    sweep: Project, tmp_path: Path
) -> None:
    """A line that is killed at that time leaves no units that run a second time."""
    sweep.write("fixed", "")
    (tmp_path / "slow").mkdir()
    (tmp_path / "slow/sitecustomize.py").write_text(
        "import os, sys, time\n"
        "while 'onebox.part_process' in ' '.join(sys.orig_argv) "
        f"and not os.path.exists({str(tmp_path / 'go')!r}):\n    time.sleep(0.05)\n"
    )
    sweep.environ["PYTHONPATH"] = str(tmp_path / "slow")
    line = sweep.start("map", "--boxes=2")
    end = time.monotonic() + 60
    while len(children(line.pid)) < 2:
        assert time.monotonic() < end
    time.sleep(0.2)
    line.kill()
    line.wait()
    refused = sweep.inv("map")
    (tmp_path / "go").touch()

    assert 75 == refused.code, refused.err
    assert "main-1" in refused.err
    while (done := sweep.inv("map")).code == 75:
        assert time.monotonic() < end + 60
        time.sleep(0.5)
    assert 0 == done.code, done.err
    assert [1] * 6 == starts(sweep)


def test_setting_deals_units_and_the_flag_overrides_it(sweep: Project) -> None:
    """What does not go with several boxes names the setting."""
    sweep.write("onebox.toml", MAP.replace("over", "boxes = 2\nover"))
    plan = sweep.inv("plan", "map")
    one = sweep.inv("plan", "map", "--boxes=1")
    left = sweep.inv("plan", "map", "--limit=1")
    refused = sweep.inv("map", "--queue")
    detach = sweep.inv("map", "--detach")

    assert 0 == plan.code, plan.err
    assert "main-2: 3 units (2, 4, 6)" in plan.out
    assert "2 boxes, no charge; each powers itself off" in plan.out
    assert "even if this machine is off" not in plan.out
    assert "main-2" not in one.out
    assert "1 of 6 units on 1 box; main-1: " in left.out
    assert "1 box, no charge; it powers itself off" in left.out
    for done in (refused, detach):
        assert 64 == done.code
        assert "[map] boxes" in done.err
        assert "--boxes=1" in done.err
    assert [] == sweep.boxes()


@pytest.mark.parametrize("boxes", ["0", "11", "x", "-1"])
def test_wrong_number_of_boxes(sweep: Project, boxes: str) -> None:
    """The message has the limit, and what is for more."""
    done = sweep.inv("map", f"--boxes={boxes}")

    assert 64 == done.code
    assert "--boxes" in done.err
    assert ("Slurm" in done.err) == (boxes == "11")
    assert not (sweep.root / ".onebox/sweeps").exists()


@pytest.mark.parametrize("flag", ["--detach", "--queue", "--only"])
def test_flag_that_needs_one_box_is_refused(sweep: Project, flag: str) -> None:
    """Each box has a process that stays."""
    done = sweep.inv("map", "--boxes=2", flag)

    assert 64 == done.code
    assert flag in done.err


def test_max_cost_is_that_of_all_boxes(
    sweep: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two boxes may cost more than one, and are refused before one is created."""
    line = Invocation("inv map", ("map",))
    flags = {"limits.max_cost": 20.0, "limits.max_hours": 8.0}
    context = BoxContext.open(str(sweep.root), sweep.environ, flags, line)
    offer = Offer("large", "big", 64, 1 << 38, 2.0, 2.0)
    monkeypatch.setattr(offers, "find", lambda context: [offer])

    one = deal.cost(context, (("main-1", (1,)),)).describe(context.now())
    assert one.startswith("1 box, at most $16.00; it powers itself off in 8 h")
    assert one.endswith("even if this machine is off")
    with pytest.raises(Unsuitable, match=r"2 boxes of big could cost \$32"):
        deal.cost(context, (("main-1", (1,)), ("main-2", (2,))))


def test_python_gets_the_receipt_of_each_box(sweep: Project) -> None:
    """`onebox.api.map(boxes=…)` returns a tuple."""
    sweep.write("fixed", "")
    sweep.write(
        "job.py",
        "import onebox.api\n"
        "found = onebox.api.map(boxes=2, limit=3)\n"
        "print([(one.box.name, one.units.done) for one in found])\n",
    )
    done = subprocess.run(
        [*sweep.argv()[:1], "job.py"],
        cwd=sweep.root,
        env=sweep.environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert 0 == done.returncode, done.stderr
    assert "[('main-1', 2), ('main-2', 1)]" in done.stdout
