"""The end of a command line: no box is deleted too early, or kept silently."""

from __future__ import annotations

import json
import re
import time

import pytest

from tests.conftest import JOB, TOML, Project
from tests.system.lines import let_job_continue

CHANGED = TOML.replace("[run]", '[run]\nwhen = "changed"')

# A task that is interrupted after its push, so that its chain leaves a box.
INTERRUPTED = (
    "import onebox\nfrom onebox import *\n\n\n@onebox.stage(onebox.push)\n"
    "def mine(c):\n    raise KeyboardInterrupt\n"
)


class TestDryLines:
    @pytest.mark.parametrize("line", [("plan",), ("--dry", "run")])
    def test_plan_keeps_the_box_of_an_interrupted_chain(
        self, project: Project, line: tuple[str, ...]
    ) -> None:
        """A dry line deletes nothing, not even a box that a killed chain has left."""
        project.write("tasks.py", INTERRUPTED)
        assert 130 == project.inv("mine").code
        (box,) = project.boxes()
        done = project.inv(*line)

        assert 0 == done.code, done.err
        assert "an earlier chain created the box for its job only" in done.out
        assert [box] == project.boxes()

    @pytest.mark.parametrize("line", [("plan",), ("--dry", "run")])
    def test_plan_reports_a_running_job_as_run_would(
        self, project: Project, line: tuple[str, ...]
    ) -> None:
        """The message is that of `inv run`."""
        project.inv("run", "--detach", "--", "sleep", "60")
        (box,) = project.boxes()
        done = project.inv(*line)

        assert 75 == done.code
        assert "is busy: job " in done.err
        assert "inv logs follows the job, inv cancel stops it" in done.err
        assert "discard" not in done.err
        assert [box] == project.boxes()


class TestJobStillRuns:
    @pytest.mark.parametrize("line", ["push", "run"])
    def test_nothing_is_pushed_under_a_running_job(
        self, project: Project, line: str
    ) -> None:
        """The box of a running job is not changed."""
        project.write("part.sh", "echo v1")
        wait = "while [ ! -e go ]; do sleep 0.1; done; sh part.sh; ls"
        project.inv("run", "--detach", "--", "sh", "-c", wait)
        (box,) = project.boxes()
        project.write("part.sh", "echo v2")
        project.write("new.sh", "")
        done = project.inv(line)

        assert 75 == done.code
        assert "is busy: job " in done.err
        assert "inv logs" in done.err.partition("next: ")[2]
        assert [box] == project.boxes()
        (project.home / "local/boxes" / box / "disk/home/work/go").touch()
        logs = project.inv("logs")
        assert "v1\n" in logs.out
        assert "new.sh" not in logs.out


class TestOutputsElsewhere:
    @pytest.mark.parametrize("words", [(), ("--", "sh", "job.sh")])
    def test_results_outside_the_outputs_keep_the_box(
        self, project: Project, words: tuple[str, ...]
    ) -> None:
        """The files that the job left elsewhere are on the box."""
        project.write(
            "job.sh", "mkdir -p reslts .cache; echo 1 > reslts/model; >.cache/x"
        )
        done = project.inv("run", *words)

        assert 73 == done.code
        assert (
            "created or changed 1 file on the box, but nothing in results/" in done.err
        )
        assert "reslts/model" in done.err
        assert 1 == len(project.boxes())
        project.write("onebox.toml", CHANGED)
        assert "it has not succeeded yet" in project.inv("plan").out
        project.write("onebox.toml", TOML.replace("results/", "reslts/"))
        assert 0 == project.inv("fetch", "teardown").code
        assert "1\n" == project.read("reslts/model")
        assert [] == project.boxes()

    def test_job_that_leaves_no_file_keeps_no_box(self, project: Project) -> None:
        """Nothing could be lost."""
        project.write("job.sh", "echo fine; mkdir -p ~/work/__pycache__")
        done = project.inv("run")

        assert (0, "fine\n") == (done.code, done.out)
        assert [] == project.boxes()
        assert [] == list((project.root / "results").iterdir())

    def test_empty_list_of_outputs_keeps_no_box(self, project: Project) -> None:
        """The user has configured that there are no outputs."""
        project.write("onebox.toml", TOML.replace('["results/"]', "[]"))
        assert 0 == project.inv("run").code
        assert [] == project.boxes()


class TestKeptBox:
    def test_line_that_leaves_a_box_names_it_once(self, project: Project) -> None:
        """The message is at the end, whichever command created the box."""
        project.write(
            "tasks.py",
            "from invoke import task\n"
            "from onebox import *\n"
            "@task(pre=[push])\n"
            "def look(c): print('looked')\n"
            "@stage(push)\n"
            "def work(c): print('worked')\n",
        )
        for line in (("look",), ("work",), ("provision", "push"), ("provision",)):
            project.inv("teardown")
            done = project.inv(*line)
            assert 0 == done.code, done.err
            (box,) = project.boxes()
            assert 1 == done.err.count("inv teardown"), done.err
            assert f"kept  {box}, no charge, powers itself off in" in done.err
        for words in (("push",), ("provision",), ("run", "--only"), ("fetch",)):
            done = project.inv(*words)
            assert 0 == done.code, done.err
            assert 1 == done.err.count(f"kept  {box}, no charge"), words
        done = project.inv("run", "--keep", "--", "sh", "-c", "exit 3")
        assert 3 == done.code
        assert 1 == done.err.count(f"kept  {box}, no charge"), done.err
        gone = project.inv("provision", "push", "teardown")
        assert "kept" not in gone.err

    def test_line_that_skips_its_stage_names_the_box(self, project: Project) -> None:
        """A stage that is up to date leaves the box up, as one that runs does."""
        project.write("onebox.toml", CHANGED)
        project.write(
            "tasks.py",
            "from onebox import *\n"
            "@stage(push, inputs=['job.sh'])\n"
            "def mine(c): pass\n",
        )
        project.inv("mine")
        project.inv("run", "--keep")
        (box,) = project.boxes()
        kept = f"kept  {box}, no charge, powers itself off in 8 h"
        for words in ("mine", "run", "image", "push", "cancel"):
            done = project.inv(words)
            assert 0 == done.code, done.err
            assert "up to date" in done.err
            assert 1 == done.err.count(kept), done.err
        project.inv("teardown")
        for words in ("mine", "run"):
            assert "kept" not in project.inv(words).err

    def test_run_on_a_kept_box_ends_with_its_verdict(self, project: Project) -> None:
        """Outputs, log, memory and cost so far are named before the kept box."""
        for words in (("run", "--keep"), ("run",)):
            done = project.inv(*words)
            assert 0 == done.code, done.err
            *_, verdict, cost, used, kept = done.err.splitlines()
            assert re.match(r"succeeded in .+ → results/, log: \.onebox/jobs/", verdict)
            assert cost.startswith("no charge; the box has been up for ")
            assert used.startswith("the job used ") and "peak memory" in used
            assert kept.startswith("box ")
        done = project.inv("run", "--", "sh", "-c", "exit 3")
        assert 3 == done.code
        assert "succeeded" not in done.err
        assert 1 == done.err.count("no charge; the box has been up for ")
        assert "has been up" not in project.inv("push").err

    def test_box_of_a_run_elsewhere_is_not_reported_as_kept(
        self, project: Project
    ) -> None:
        """The run in the other terminal decides, so the line names that run."""
        project.write(
            "job.sh", "echo begun; while [ ! -e go ]; do sleep 0.1; done; rm go"
        )
        line = project.start("run")
        project.until("begun")
        done = project.inv("image")
        let_job_continue(project)

        assert 0 == line.wait(60)
        (kept,) = [row for row in done.err.splitlines() if row.startswith("box ")]
        assert "in use  ob-" in kept
        assert f'pid {line.pid} "inv run" uses it' in kept
        assert [] == project.boxes()

    def test_box_deleted_by_a_later_task_is_not_reported_as_kept(
        self, project: Project
    ) -> None:
        """A plain task runs a job on the box of its `pre`."""
        project.write(
            "tasks.py",
            "from invoke import task\n"
            "from onebox import *\n"
            "@task(pre=[push])\n"
            "def train(c): run(c)\n",
        )
        done = project.inv("train")

        assert 0 == done.code, done.err
        assert "gone" in done.err
        assert "kept" not in done.err
        assert [] == project.boxes()

    def test_stopped_box_is_stopped_again_after_its_outputs_were_read(
        self, project: Project
    ) -> None:
        """A box that was started to read its disk is off at the end."""
        project.inv("run", "--keep")
        (box,) = project.boxes()
        project.cut_power()
        done = project.inv("fetch")

        assert 0 == done.code, done.err
        assert f"{box} is off again: inv teardown removes its disk" in done.err
        assert "stopped" in project.inv("status").out
        assert "off again" not in project.inv("fetch", "teardown").err
        assert [] == project.boxes()


class TestStoppedBox:
    def test_teardown_starts_a_stopped_box_fetches_and_deletes_it(
        self, project: Project
    ) -> None:
        """One command does all of it."""
        stop_after_its_job(project)
        done = project.inv("teardown")

        assert 0 == done.code, done.err
        assert "42\n" == project.read("results/answer.txt")
        assert [] == project.boxes()

    @pytest.mark.parametrize("line", ["teardown", "fetch"])
    def test_stopped_box_is_stopped_again_after_a_refusal(
        self, project: Project, line: str
    ) -> None:
        """If outputs cannot be fetched, the box is kept, but off."""
        project.write("job.sh", f"{JOB}ln -s /etc/passwd results/sly\n")
        stop_after_its_job(project)
        (box,) = project.boxes()
        done = project.inv(line)

        assert 73 == done.code
        assert f"{box} is off again" in done.err
        assert "is stopped; its disk is kept" in done.err
        assert "stopped" in project.inv("status").out


def stop_after_its_job(project: Project) -> None:
    """Run a job to its end without a client; then power the box off."""
    project.inv("run", "--detach")
    while "running" in project.inv("status").out.split("job ")[-1]:
        time.sleep(0.1)
    project.cut_power()
    assert "stopped" in project.inv("status").out


class TestUpToDate:
    def test_lost_outputs_of_an_earlier_job_cause_no_run(
        self, project: Project
    ) -> None:
        """
        Outputs of an earlier job that exist nowhere any more are no reason to
        run.
        """
        project.write("onebox.toml", CHANGED)
        project.write("job.sh", "mkdir -p results; echo 1 > results/old")
        assert 0 == project.inv("run").code
        project.write("job.sh", JOB)
        (project.root / "results/old").unlink()
        assert "working\n" == project.inv("run").out

        assert "" == project.inv("run").out


class TestReceipt:
    def test_receipt_is_written_beside_fetched_outputs_only(
        self, project: Project
    ) -> None:
        """
        A receipt is written beside outputs that were fetched; it creates no
        folder.
        """
        project.write("onebox.toml", TOML.replace('"results/"', '"none/", "results/"'))
        (project.root / "none").mkdir()
        assert 0 == project.inv("run").code

        assert [] == list((project.root / "none").iterdir())
        receipt = json.loads(project.read("results/onebox-receipt.json"))
        assert {"files": 1, "bytes": 3} == receipt["outputs"]


def test_command_that_is_no_text_is_refused_before_a_box_is_created(
    project: Project,
) -> None:
    """A command given in Python must be a string."""
    project.write(
        "tasks.py",
        "import onebox\n"
        "from onebox import *\n"
        "@stage\n"
        "def work(c): onebox.run(c, command=['echo', 'x'])\n",
    )
    done = project.inv("work")

    assert 64 == done.code
    assert "expected a string" in done.err
    assert [] == project.boxes()


PLANNED = (
    "from invoke import task\nfrom onebox import *\n"
    "@task\ndef planned(c):\n    plan(c)\n    {}(c)\n"
)


def test_plan_before_a_run_leaves_no_box(project: Project) -> None:
    """A run in a user's task ends as `inv run` does, because a plan asks for no box."""
    project.write("tasks.py", PLANNED.format("run"))
    done = project.inv("planned")

    assert 0 == done.code, done.err
    assert "machine, disk, keys: gone" in done.err
    assert "42\n" == project.read("results/answer.txt")
    assert [] == project.boxes()


def test_plan_before_a_push_does_not_hide_the_box(project: Project) -> None:
    """A push in a user's task reports the kept box, as `inv push` does."""
    project.write("tasks.py", PLANNED.format("push"))
    done = project.inv("planned")

    (box,) = project.boxes()
    assert f"kept  {box}, no charge, powers itself off in" in done.err


def test_keyboard_interrupt_of_a_users_handler_names_the_box(project: Project) -> None:
    """KeyboardInterrupt counts as the signal: the exit code is 130."""
    project.write("tasks.py", INTERRUPTED)
    done = project.inv("mine")

    (box,) = project.boxes()
    assert 130 == done.code
    assert f"({box}) is still up" in done.err


def test_keep_holds_for_the_box_that_existed(project: Project) -> None:
    """After a teardown on the line, the next run's box is temporary again."""
    done = project.inv("run", "--keep", "teardown", "run")

    assert 0 == done.code, done.err
    assert 2 == done.err.count("machine, disk, keys: gone"), done.err
    assert [] == project.boxes()


@pytest.mark.parametrize("body", ["print('DONE')", "raise SystemExit(3)"])
def test_box_of_a_job_that_a_stage_needs_is_removed(
    project: Project, body: str
) -> None:
    """The chain created the box only for that job, however the stage itself ends."""
    project.write(
        "tasks.py",
        "import onebox\nfrom onebox import *\n\n\n@onebox.stage(onebox.run)\n"
        f"def report(c):\n    {body}\n",
    )
    done = project.inv("report")

    assert done.code == (3 if "3" in body else 0), done.err
    assert "machine, disk, keys: gone" in done.err
    assert [] == project.boxes()


def test_box_that_a_push_has_left_stays_after_a_run(project: Project) -> None:
    """The push says that the box is kept, so a later run does not remove it."""
    pushed = project.inv("push")
    (box,) = project.boxes()
    assert f"kept  {box}" in pushed.err
    done = project.inv("run")

    assert 0 == done.code, done.err
    assert f"kept  {box}" in done.err
    assert [box] == project.boxes()


def test_box_of_an_interrupted_push_stays_after_the_next_push(
    project: Project,
) -> None:
    """The line of the second push says that the box is kept."""
    project.write("tasks.py", INTERRUPTED)
    assert 130 == project.inv("mine").code
    (box,) = project.boxes()
    assert f"kept  {box}" in project.inv("push").err

    assert 0 == project.inv("run").code
    assert [box] == project.boxes()


def test_push_before_a_run_does_not_keep_the_box_of_an_interrupted_one(
    project: Project,
) -> None:
    """No line has said that this box is kept."""
    project.write("tasks.py", INTERRUPTED)
    assert 130 == project.inv("mine").code
    done = project.inv("push", "run")

    assert 0 == done.code, done.err
    assert "machine, disk, keys: gone" in done.err
    assert [] == project.boxes()
