"""`inv map`: many units on one box, their results, and what runs again."""

from __future__ import annotations

import csv
import io
import json
import re
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import Done, Project
from tests.system import outgrow
from tests.system.lines import finished_stages

MAP = """\
[map]
command = "sh fit.sh {seed} {alpha}"
over = { seed = "1..3", alpha = [0.1, 10] }

[fetch]
outputs = ["results/"]
"""
# The unit with seed 2 and alpha 10 has the number 4.
FIT = """\
echo "seed $1 alpha $2 unit $ONEBOX_UNIT of $ONEBOX_UNITS"
echo "$1 $2 $seed $alpha" > "$ONEBOX_UNIT_OUTPUTS/answer.txt"
date +%s%N >> "$ONEBOX_UNIT_OUTPUTS/starts"
if [ "$1 $2" = "2 10" ] && [ ! -e fixed ]; then echo "no fit" >&2; exit 7; fi
"""


@pytest.fixture
def sweep(project: Project) -> Project:
    """A project with six units, of which the fourth fails as long as `fixed` lacks."""
    project.write("onebox.toml", MAP)
    project.write("fit.sh", FIT)
    return project


def table(project: Project, path: str = "results/units.csv") -> list[dict[str, str]]:
    """Return the lines of units.csv."""
    return list(csv.DictReader(io.StringIO(project.read(path))))


def states(project: Project) -> list[str]:
    """Return the state of each unit in units.csv."""
    return [line["state"] for line in table(project)]


def wait_for(project: Project, pattern: str, line: str = "") -> None:
    """Wait until a path in the local boxes matches, and its text has a line."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        # Folders come and go while they are searched.
        with suppress(FileNotFoundError):
            root = Path(project.environ["ONEBOX_LOCAL_ROOT"])
            for path in root.glob(f"**/{pattern}"):
                if line in path.read_text():
                    return
        time.sleep(0.05)
    raise AssertionError(f"no {pattern}")


def receipt(project: Project) -> dict[str, object]:
    """Return the newest receipt."""
    path = max(project.root.glob(".onebox/jobs/*/receipt.json"))
    document: dict[str, object] = json.loads(path.read_text())
    return document


def test_units_run_with_their_parameters_and_leave_no_box(sweep: Project) -> None:
    """Each unit has its command, variables and folder; the box goes away."""
    sweep.write("fixed", "")
    done = sweep.inv("map")

    assert 0 == done.code, done.err
    assert ["image", "provision", "push", "map", "fetch", "units", "teardown"] == (
        finished_stages(done.err)
    )
    assert "3 10 3 10\n" == sweep.read("results/6/answer.txt")
    assert "seed 1 alpha 0.1 unit 1 of 6\n" == sweep.read("results/1/unit.log")
    assert ["done"] * 6 == states(sweep)
    assert ["1", "1", "2", "2", "3", "3"] == [line["seed"] for line in table(sweep)]
    assert {"total": 6, "done": 6, "failed": 0, "left": 0} == receipt(sweep)["units"]
    assert [] == sweep.boxes()


def test_failed_unit_fails_the_line_and_alone_runs_again(sweep: Project) -> None:
    """The others have run; `--failed` runs one unit, and then the sweep is done."""
    done = sweep.inv("map")
    before = sweep.read("results/1/starts")

    assert 1 == done.code
    assert "5 of 6 done, 1 failed" in done.err
    assert "no fit" in done.err
    assert "exit 7" in done.err
    assert "failed" == states(sweep)[3]
    sweep.write("fixed", "")
    again = sweep.inv("map", "--failed")

    assert 0 == again.code, again.err
    assert "6 of 6 done" in again.err
    assert ["done"] * 6 == states(sweep)
    assert before == sweep.read("results/1/starts")
    third = sweep.inv("map", "--failed")
    assert 0 == third.code
    assert "all units are done" in third.err
    assert "provision" not in finished_stages(third.err)


def test_retry_is_counted(sweep: Project) -> None:
    """A unit that succeeds at its second attempt is done."""
    sweep.write("onebox.toml", MAP.replace("over", "retries = 1\nover"))
    sweep.write(
        "fit.sh",
        'test -e "$ONEBOX_UNIT_OUTPUTS/x" || { >"$ONEBOX_UNIT_OUTPUTS/x"; exit 3; }',
    )
    done = sweep.inv("map", "--limit=2")

    assert 0 == done.code, done.err
    assert ["2", "2"] == [line["attempts"] for line in table(sweep)[:2]]
    assert ["done", "done", "left"] == states(sweep)[:3]


@pytest.mark.parametrize("flags", [(), ("--failed",)])
def test_limit_is_a_first_try_and_the_next_map_runs_the_rest(
    sweep: Project, flags: tuple[str, ...]
) -> None:
    """What `--limit` has not run is left, not done."""
    sweep.write("fixed", "")
    assert 0 == sweep.inv("map", "--limit=1").code
    first = sweep.read("results/1/starts")
    done = sweep.inv("map", *flags)

    assert 0 == done.code, done.err
    assert ["done"] * 6 == states(sweep)
    assert first == sweep.read("results/1/starts")


def test_plan_with_a_limit_says_how_many_units_are_not_done(sweep: Project) -> None:
    """The limit says how many of them run."""
    sweep.write("fixed", "")
    assert 0 == sweep.inv("map", "--limit=1").code
    plan = sweep.inv("plan", "map", "--limit=2")

    assert "goes on: 5 of 6 units are not done" in plan.out
    assert "2 of 6 units, each with 1 CPU" in plan.out


def test_new_map_runs_all_units_again(sweep: Project) -> None:
    """Results of an earlier sweep do not count, as those of an earlier run."""
    sweep.write("fixed", "")
    assert 0 == sweep.inv("provision", "map").code
    first = sweep.read("results/1/starts")
    assert 0 == sweep.inv("map").code
    assert 0 == sweep.inv("teardown").code

    assert first != sweep.read("results/1/starts")
    assert 1 == sweep.read("results/1/starts").count("\n")


def test_log_of_a_unit_is_printed_with_its_exit_code(sweep: Project) -> None:
    """From the outputs here, after the box has gone."""
    assert 1 == sweep.inv("map").code
    done = sweep.inv("logs", "--unit=4")

    assert (7, "seed 2 alpha 10 unit 4 of 6\nno fit\n") == (done.code, done.out)
    assert (0, "seed 1 alpha 0.1 unit 1 of 6\n") == (
        sweep.inv("logs", "--unit=1").code,
        sweep.inv("logs", "--unit=1").out,
    )


def test_log_of_a_unit_is_read_from_the_box(sweep: Project) -> None:
    """A detached job's units have logs too, before they are fetched."""
    assert 0 == sweep.inv("map", "--detach").code
    sweep.inv("logs")
    done = sweep.inv("logs", "--unit=4")

    assert (7, "seed 2 alpha 10 unit 4 of 6\nno fit\n") == (done.code, done.out)
    assert not (sweep.root / "results").exists()
    done = sweep.inv("fetch", "teardown")
    assert 0 == done.code, done.err
    assert "failed" == states(sweep)[3]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--unit=7",), "job"),
        (("--unit=0",), "--unit: expected the number of a unit"),
        (("--unit=x",), "--unit: expected the number of a unit"),
    ],
)
def test_wrong_unit_is_a_mistake(
    sweep: Project, words: tuple[str, ...], problem: str
) -> None:
    """The message says how many units there are."""
    assert 1 == sweep.inv("map").code
    done = sweep.inv("logs", *words)

    assert 64 == done.code
    assert problem in done.err


@pytest.mark.parametrize("flags", [(), ("--failed",)])
def test_plan_counts_no_units_whose_outputs_are_fetched_first(
    sweep: Project, flags: tuple[str, ...]
) -> None:
    """What is left is known when the outputs of the ended job are here."""
    assert 0 == sweep.inv("map", "--detach").code
    sweep.inv("logs")
    plan = sweep.inv("plan", "map", *flags)
    again = sweep.inv("plan", "map", "--again")
    sweep.write("fixed", "")
    done = sweep.inv("map", "--failed")

    assert 0 == plan.code, plan.err
    assert "the outputs on main are fetched first" in plan.out
    assert "6 units" not in plan.out
    assert "not done" not in plan.out
    assert "sh fit.sh" not in plan.out
    assert "6: sh fit.sh 3 10" in again.out
    assert 0 == done.code, done.err
    assert "1 of 6 units is not done" in done.err


def test_plan_names_a_parameter_that_the_command_does_not_use(sweep: Project) -> None:
    """Its values multiply the units; letters of another word are no placeholder."""
    line = ("plan", "map", "--over=n=1..3", "--over=k=1", "--")
    plan = sweep.inv(*line, "sh", "-c", "run $k {seed} {alpha}")
    spaced = sweep.inv(*line, "sh", "-c", "run { seed }")

    assert 0 == plan.code, plan.err
    assert "the command does not contain {n}; each unit has this" in plan.out
    assert 64 == spaced.code
    assert "{ seed } is no placeholder, did you mean {seed}?" in spaced.err


def test_plan_lists_the_units_and_creates_nothing(sweep: Project) -> None:
    """`inv plan map` and `inv --dry map` are the same."""
    plan = sweep.inv("plan", "map")
    dry = sweep.inv("--dry", "map")

    assert 0 == plan.code, plan.err
    assert "6 units, each with 1 CPU" in plan.out
    assert "at once on" in plan.out
    assert "4: sh fit.sh 2 10" in plan.out
    # A minute may begin between them.
    times = re.compile(r"\(\d\d:\d\d\)")
    assert times.sub("", plan.out) == times.sub("", dry.out)
    assert [] == sweep.boxes()


def test_over_on_the_line_replaces_a_parameter(sweep: Project) -> None:
    """A typed command has its own placeholders."""
    line = ["map", "--over=seed=7..8", "--over=alpha=1", "--", "echo", "a {seed}"]
    done = sweep.inv(*line)

    assert 0 == done.code, done.err
    assert "a 8\n" == sweep.read("results/2/unit.log")
    assert 2 == len(table(sweep))


def test_map_works_without_onebox_toml(project: Project) -> None:
    """`--over` and a command are enough."""
    (project.root / "onebox.toml").unlink()
    done = project.inv("map", "--over=n=1..2", "--", "sh", "-c", "echo $n")

    assert 0 == done.code, done.err
    assert "2\n" == project.read("results/2/unit.log")


@pytest.mark.parametrize(
    ("text", "code", "problem"),
    [
        ('over = { a = "1..3" }', 78, "nothing to map"),
        ('command = "x"', 78, "param"),
        ('command = "x {b}"\nover = { a = "1..3" }', 78, "{b}"),
        ('command = "x"\nover = { a = [] }', 78, "a"),
        ('command = "x"\nover = { a = "1..10000000" }', 78, "10,000,000"),
        (
            'command = "x"\nparams = "none.csv"',
            66,
            "onebox.toml:3: [map] params: ",
        ),
        ('command = "x"\nover = { a = [1] }\noutputs = "{a}/"', 78, "outputs"),
    ],
)
def test_wrong_map_is_refused_before_a_box_is_created(
    project: Project, text: str, code: int, problem: str
) -> None:
    """One line names file and key."""
    project.write("onebox.toml", f"[map]\n{text}\n")
    for words in (("map",), ("plan", "map")):
        done = project.inv(*words)
        assert code == done.code, done.err
        assert problem in done.err
        assert "onebox.toml" in done.err or "none.csv" in done.err
        assert "Traceback" not in done.err
    assert [] == project.boxes()


def test_params_file_has_one_unit_a_line(project: Project) -> None:
    """The header has the names."""
    project.write("params.csv", "city,year\nNew York,1999\nParis,2001\n")
    project.write(
        "onebox.toml", '[map]\ncommand = "echo {city}-{year}"\nparams = "params.csv"\n'
    )
    done = project.inv("map")

    assert 0 == done.code, done.err
    assert "New York-1999\n" == project.read("results/1/unit.log")
    assert "New York" == table(project)[0]["city"]


def test_cancelled_units_are_left_and_map_runs_only_them(sweep: Project) -> None:
    """What is done stays done, on the same box."""
    sweep.write("fixed", "")
    sweep.write("fit.sh", FIT + '[ "$1 $2" != "2 10" ] || [ -e go ] || sleep 600\n')
    assert 0 == sweep.inv("map", "--detach").code
    wait_for(sweep, "results/6/unit.json")
    wait_for(sweep, "results/4/starts")
    assert 0 == sweep.inv("cancel").code
    box = next(Path(sweep.environ["ONEBOX_LOCAL_ROOT"]).glob("boxes/*/disk/home/work"))
    (box / "go").touch()
    done = sweep.inv("map", "--only")
    assert 0 == sweep.inv("fetch", "teardown").code

    assert 0 == done.code, done.err
    assert ["done"] * 6 == states(sweep)
    assert 1 == sweep.read("results/1/starts").count("\n")
    assert 2 == sweep.read("results/4/starts").count("\n")


def test_killed_client_loses_no_unit(sweep: Project) -> None:
    """The units go on without it; the next `inv map` fetches them and runs nothing."""
    sweep.write("fixed", "")
    sweep.write("fit.sh", FIT + "sleep 0.5\n")
    line = sweep.start("map")
    wait_for(sweep, "results/1/starts")
    line.kill()
    line.wait()
    wait_for(sweep, "results/6/unit.json")
    assert 0 == sweep.inv("logs").code
    done = sweep.inv("map")

    assert 0 == done.code, done.err
    assert ["done"] * 6 == states(sweep)
    assert 1 == sweep.read("results/1/starts").count("\n")


def test_interrupt_detaches_and_the_units_continue(sweep: Project) -> None:
    """Ctrl-C leaves the units running, and says how to come back."""
    sweep.write("fixed", "")
    sweep.write("fit.sh", FIT + "sleep 0.5\n")
    line = sweep.start("map")
    wait_for(sweep, "results/1/starts")
    line.send_signal(signal.SIGINT)

    assert 130 == line.wait(60)
    assert "inv logs" in sweep.err
    assert 0 == sweep.inv("logs").code
    done: Done = sweep.inv("fetch", "teardown")
    assert 0 == done.code, done.err
    assert ["done"] * 6 == states(sweep)


def test_own_task_maps_from_python(sweep: Project) -> None:
    """`onebox.map` takes values of Python."""
    sweep.write("fixed", "")
    sweep.write(
        "tasks.py",
        "import onebox\nfrom onebox import *\nfrom onebox import push, stage\n\n"
        "@stage(push)\ndef mine(c):\n"
        "    onebox.map(c, over={'seed': range(2, 4), 'alpha': [0.5]})\n",
    )
    done = sweep.inv("mine")

    assert 0 == done.code, done.err
    assert "3 0.5 3 0.5\n" == sweep.read("results/2/answer.txt")


def test_units_are_no_code(sweep: Project) -> None:
    """Outputs of units are not pushed to the next box, whatever their folder is."""
    sweep.write(
        "onebox.toml", MAP.replace("over", 'outputs = "fits/{seed}-{alpha}/"\nover')
    )
    sweep.write("fixed", "")
    assert 0 == sweep.inv("map").code
    assert "1 0.1 1 0.1\n" == sweep.read("fits/1-0.1/answer.txt")
    done = sweep.inv("run", "--", "find", "fits")

    assert 0 == done.code, done.err
    assert "fits\n" == done.out


def test_failed_units_of_another_box_do_not_count(sweep: Project) -> None:
    """Each name has its own sweep."""
    assert 1 == sweep.inv("map").code
    done = sweep.inv("map", "--failed", "--name=second")

    assert 64 == done.code
    assert "no units have run here yet" in done.err


def test_results_in_another_folder_are_found_by_naming_it(sweep: Project) -> None:
    """`--failed` looks where the outputs of the sweep are."""
    assert 1 == sweep.inv("map", "--into=first").code
    sweep.write("fixed", "")
    refused = sweep.inv("map", "--failed")
    done = sweep.inv("map", "--failed", "--into=first")

    assert 64 == refused.code
    assert "inv map --failed --into=first" in refused.err
    assert 0 == done.code, done.err
    assert ["done"] * 6 == [
        line["state"] for line in table(sweep, "first/results/units.csv")
    ]
    assert 0 == sweep.inv("logs", "--unit=4").code


def test_results_in_the_usual_folder_need_no_flag(sweep: Project) -> None:
    """The line that helps is the shortest one."""
    assert 1 == sweep.inv("map").code
    done = sweep.inv("map", "--failed", "--into=x")

    assert 64 == done.code
    assert "are in the project\n" in done.err
    assert "next: inv map --failed\n" in done.err


@pytest.mark.parametrize(
    ("flags", "command"),
    [
        (("--limit=1",), "inv map"),
        (("--limit=1", "--into=a b"), "inv map '--into=a b'"),
        (("--limit=1", "--over=seed=1..4"), "inv map --failed"),
        (("--limit=4",), "inv map --failed"),
    ],
)
def test_next_line_of_a_sweep_is_about_failed_units_if_there_are_any(
    sweep: Project, flags: tuple[str, ...], command: str
) -> None:
    """Otherwise the sweep only goes on; `--failed` knows what was typed for it."""
    done = sweep.inv("map", *flags)

    assert f"; {command} runs those that are not done" in done.err, done.err


def test_notes_of_a_plan_are_no_warnings_of_a_failure(sweep: Project) -> None:
    """That a sweep goes on is no risk."""
    assert 0 == sweep.inv("map", "--limit=1").code
    plan = sweep.inv("plan", "map")

    assert "worth knowing  the sweep of job" in plan.out
    assert "may fail" not in plan.out


def test_units_that_are_done_run_again_only_when_asked(sweep: Project) -> None:
    """The first job ended while nobody was attached."""
    sweep.write("fixed", "")
    assert 0 == sweep.inv("map", "--detach").code
    assert 0 == sweep.inv("logs").code
    done = sweep.inv("map")

    assert 0 == done.code, done.err
    assert "has done all units" in done.err
    assert 1 == sweep.read("results/1/starts").count("\n")
    first = sweep.read("results/1/starts")
    assert 0 == sweep.inv("map", "--again").code
    assert first != sweep.read("results/1/starts")


def test_changed_code_begins_a_new_sweep(sweep: Project) -> None:
    """Results of two versions of the code are never mixed, whatever is fetched."""
    sweep.write("fixed", "")
    assert 0 == sweep.inv("map", "--detach").code
    assert 0 == sweep.inv("logs").code
    sweep.write("fit.sh", 'echo new > "$ONEBOX_UNIT_OUTPUTS/answer.txt"')
    plan = sweep.inv("plan", "map")
    done = sweep.inv("map")

    assert "6 units, each" in plan.out
    assert "earlier sweep" in done.err
    assert 0 == done.code, done.err
    assert all("new\n" == sweep.read(f"results/{n}/answer.txt") for n in range(1, 7))


def test_cancelled_sweep_goes_on_after_its_outputs_were_fetched(
    sweep: Project,
) -> None:
    """The box has gone; what is done is not paid for twice."""
    sweep.write("fixed", "")
    sweep.write("fit.sh", FIT + '[ "$1 $2" != "2 10" ] || [ ! -e wait ] || sleep 600\n')
    sweep.write("wait", "")
    assert 0 == sweep.inv("map", "--detach").code
    wait_for(sweep, "results/6/unit.json")
    wait_for(sweep, "results/4/starts")
    assert 0 == sweep.inv("cancel").code
    assert 0 == sweep.inv("fetch", "teardown").code
    before = sweep.read("results/1/starts")
    plan = sweep.inv("plan", "map")
    line = sweep.start("map")
    wait_for(sweep, "results/4/starts")
    box = next(Path(sweep.environ["ONEBOX_LOCAL_ROOT"]).glob("boxes/*/disk/home/work"))
    (box / "wait").unlink()
    line.terminate()
    line.wait(60)

    assert "1 of 6 units" in plan.out
    assert "goes on" in plan.out
    assert "goes on" in sweep.err
    assert before == sweep.read("results/1/starts")
    assert 0 == sweep.inv("cancel").code
    assert 0 == sweep.inv("teardown", "--discard-outputs", "--yes").code


def test_tail_of_a_units_log(sweep: Project) -> None:
    """On the box and here."""
    sweep.write("fit.sh", "echo a; echo b; echo c")
    assert 0 == sweep.inv("map", "--detach").code
    assert 0 == sweep.inv("logs").code
    on_box = sweep.inv("logs", "--unit=1", "--tail=2")
    assert 0 == sweep.inv("fetch", "teardown").code
    here = sweep.inv("logs", "--unit=1", "--tail=2")

    assert ("b\nc\n", "b\nc\n") == (on_box.out, here.out)


def test_added_units_run_with_those_that_are_not_done(sweep: Project) -> None:
    """`--failed` needs the earlier units to be the same."""
    assert 1 == sweep.inv("map").code
    before = sweep.read("results/1/starts")
    sweep.write("fixed", "")
    refused = sweep.inv("map", "--failed", "--over=seed=2..4")
    done = sweep.inv("map", "--failed", "--over=seed=1..4")

    assert 64 == refused.code
    assert "the parameters have changed" in refused.err
    assert 0 == done.code, done.err
    assert ["done"] * 8 == states(sweep)
    assert before == sweep.read("results/1/starts")


def test_fixed_command_is_used_for_what_failed(sweep: Project) -> None:
    """The command of a sweep may change, its parameters may not."""
    assert 1 == sweep.inv("map").code
    sweep.write("onebox.toml", MAP.replace("sh fit.sh {seed} {alpha}", "echo now"))
    done = sweep.inv("map", "--failed")

    assert 0 == done.code, done.err
    assert sweep.read("results/4/unit.log").endswith("now\n")


def test_run_without_a_command_names_map(sweep: Project) -> None:
    """A project may have units only."""
    done = sweep.inv("run")

    assert 78 == done.code
    assert "inv map runs the units" in done.err


@pytest.mark.parametrize(
    "attack",
    [
        ": > results/1/unit.json",
        "rm -r results/1; mkdir -p results/1/unit.json",
    ],
)
def test_unit_whose_result_another_one_destroys_is_not_done(
    sweep: Project, attack: str
) -> None:
    """The line cannot exit with 0 then, and `--failed` runs that unit again."""
    sweep.write("fixed", "")
    sweep.write("fit.sh", f'[ "$1 $2" != "3 10" ] || {{ sleep 1; {attack}; }}')
    done = sweep.inv("map")

    assert 1 == done.code, done.err
    assert "done" != states(sweep)[0]
    assert ["done"] * 5 == states(sweep)[1:]
    sweep.write("fit.sh", "true")
    again = sweep.inv("map", "--failed")
    assert 0 == again.code, again.err
    assert ["done"] * 6 == states(sweep)


@pytest.mark.parametrize("where", ["here", "box"])
def test_table_that_cannot_be_written_hides_no_exit_code(
    sweep: Project, where: str
) -> None:
    """A warning says so; an output of that name is kept."""
    sweep.write("fit.sh", "exit 9")
    if where == "here":
        (sweep.root / "results/units.csv").mkdir(parents=True)
    else:
        sweep.write("fit.sh", "echo mine > results/units.csv; exit 9")
    done = sweep.inv("map", "--limit=1")

    assert 1 == done.code, done.err
    assert "units.csv" in done.err
    assert "Traceback" not in done.err
    if where == "box":
        assert "mine\n" == sweep.read("results/units.csv")
    assert [] == sweep.boxes()


def test_job_that_the_box_refuses_leaves_the_sweep_as_it_was(sweep: Project) -> None:
    """Its units have not run, so they are not those that `--failed` completes."""
    assert 1 == sweep.inv("map", "--keep").code
    before = sweep.read("results/1/starts")
    plan = sweep.inv("map", f"--command=true {'x' * 60_000}")
    sweep.write("fixed", "")
    done = sweep.inv("map", "--failed")

    assert 64 == plan.code
    assert 0 == done.code, done.err
    assert before == sweep.read("results/1/starts")
    assert 0 == sweep.inv("teardown").code


def test_files_of_a_cloned_project_are_no_jobs(sweep: Project) -> None:
    """A folder with another name than that of a job does not count."""
    assert 1 == sweep.inv("map").code
    (job,) = sweep.root.glob(".onebox/jobs/*/units-job.json")
    for name in ("zzz\x1b[2J", "99999999-999999-0000"):
        folder = sweep.root / ".onebox/jobs" / name
        folder.mkdir()
        text = job.read_text() if name[0] == "z" else '{"sweep": "../../x"}'
        (folder / "units-job.json").write_text(text)
        (folder / "units.json").write_bytes(job.with_name("units.json").read_bytes())
    sweep.write("fixed", "")
    done = sweep.inv("map", "--failed")

    assert 0 == done.code, done.err
    assert "\x1b" not in done.err + done.out
    assert ["done"] * 6 == states(sweep)


def test_changed_environment_begins_a_new_sweep(sweep: Project) -> None:
    """The settings of the job are inputs of its units, as code is."""
    sweep.write("fixed", "")
    sweep.write(
        "onebox.toml", MAP + '[profile.gpu.run]\nenv = { TAG = "gpu" }\n[run]\n'
    )
    sweep.write("fit.sh", 'echo "$TAG" > "$ONEBOX_UNIT_OUTPUTS/tag"')
    assert 0 == sweep.inv("map", "--limit=2").code
    done = sweep.inv("map", "--profile=gpu")

    assert 0 == done.code, done.err
    assert "a new sweep begins" in done.err
    assert ["gpu\n"] * 6 == [sweep.read(f"results/{n}/tag") for n in range(1, 7)]


def test_sweep_of_two_versions_of_the_code_does_not_go_on(sweep: Project) -> None:
    """Only `--failed` mixes them, and says so."""
    sweep.write("fit.sh", 'echo 1 > "$ONEBOX_UNIT_OUTPUTS/v"')
    assert 0 == sweep.inv("map", "--limit=2").code
    sweep.write("fit.sh", 'echo 2 > "$ONEBOX_UNIT_OUTPUTS/v"')
    mixed = sweep.inv("map", "--failed", "--limit=1")
    done = sweep.inv("map")

    assert 0 == mixed.code, mixed.err
    assert "results of both will stand side by side" in mixed.err
    assert 0 == done.code, done.err
    assert ["2\n"] * 6 == [sweep.read(f"results/{n}/v") for n in range(1, 7)]


def test_typed_sweep_can_be_completed_in_several_steps(sweep: Project) -> None:
    """What was typed is remembered by each `--failed`."""
    sweep.write("bad", "")
    words = ["--over=n=1..3", "--", "sh", "-c", "test $n != 2 || [ ! -e bad ]"]
    assert 1 == sweep.inv("map", *words).code
    assert 1 == sweep.inv("map", "--failed").code
    (sweep.root / "bad").unlink()
    done = sweep.inv("map", "--failed")

    assert 0 == done.code, done.err
    assert {"done"} == set(states(sweep))
    assert 18 == len(states(sweep))


@pytest.mark.parametrize("task", ["run", "map"])
def test_example_leaves_the_same_outputs_as_without_onebox(
    project: Project, task: str
) -> None:
    """`run` does one fit after the other, and `map` each as a unit."""
    outgrow.copy(project)
    done = project.inv(task)

    assert 0 == done.code, done.err
    assert outgrow.expected() == outgrow.outputs(project.root)
