"""What is there when a line is through: no box gone too early, none left unsaid."""

from __future__ import annotations

import json
import time

import pytest

from tests.conftest import JOB, TOML, Project

CHANGED = TOML.replace("[run]", '[run]\nwhen = "changed"')


class TestOnlySaid:
    @pytest.mark.parametrize("line", [("plan",), ("--dry", "run")])
    def test_box_of_an_interrupted_chain(
        self, project: Project, line: tuple[str, ...]
    ) -> None:
        """
        To say what would happen removes nothing, not even what a chain has left.
        """
        project.inv("push")
        (box,) = project.boxes()
        done = project.inv(*line)

        assert 0 == done.code, done.err
        assert "an earlier chain created the box for its job only" in done.out
        assert [box] == project.boxes()

    @pytest.mark.parametrize("line", [("plan",), ("--dry", "run")])
    def test_job_runs(self, project: Project, line: tuple[str, ...]) -> None:
        """
        It says what `inv run` would say to a job that still runs.
        """
        project.inv("run", "--detach", "--", "sleep", "60")
        (box,) = project.boxes()
        done = project.inv(*line)

        assert 64 == done.code
        assert "still runs" in done.err
        assert "inv logs follows it" in done.err
        assert "discard" not in done.err
        assert [box] == project.boxes()


class TestJobStillRuns:
    @pytest.mark.parametrize("line", ["push", "run"])
    def test_its_files_stay(self, project: Project, line: str) -> None:
        """
        Nothing is pushed under a job that runs, and its box is not touched.
        """
        project.write("part.sh", "echo v1")
        wait = "while [ ! -e go ]; do sleep 0.1; done; sh part.sh; ls"
        project.inv("run", "--detach", "--", "sh", "-c", wait)
        (box,) = project.boxes()
        project.write("part.sh", "echo v2")
        project.write("new.sh", "")
        done = project.inv(line)

        assert 64 == done.code
        assert "still runs" in done.err
        assert "next: inv logs follows it, inv cancel stops it" in done.err
        assert [box] == project.boxes()
        (project.home / "local/boxes" / box / "disk/home/work/go").touch()
        logs = project.inv("logs")
        assert "v1\n" in logs.out
        assert "new.sh" not in logs.out


class TestOutputsElsewhere:
    @pytest.mark.parametrize("words", [(), ("--", "sh", "job.sh")])
    def test_box_is_kept(self, project: Project, words: tuple[str, ...]) -> None:
        """
        What a job has left elsewhere than it said is on a box that stays.
        """
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

    def test_nothing_left(self, project: Project) -> None:
        """
        A job that leaves nothing at all has nothing to lose.
        """
        project.write("job.sh", "echo fine; mkdir -p ~/work/__pycache__")
        done = project.inv("run")

        assert (0, "fine\n") == (done.code, done.out)
        assert [] == project.boxes()
        assert [] == list((project.root / "results").iterdir())

    def test_none_are_wanted(self, project: Project) -> None:
        """
        Who has said that there are no outputs is not asked about them.
        """
        project.write("onebox.toml", TOML.replace('["results/"]', "[]"))
        assert 0 == project.inv("run").code
        assert [] == project.boxes()


class TestKept:
    def test_is_said(self, project: Project) -> None:
        """
        A line that leaves a box up says so at its end, once, whoever has made it.
        """
        project.write(
            "tasks.py",
            "from invoke import task\n"
            "from onebox import *\n"
            "@task(pre=[push])\n"
            "def look(c): print('looked')\n"
            "@stage(push)\n"
            "def work(c): print('worked')\n",
        )
        for line in (("provision",), ("look",), ("work",), ("provision", "push")):
            done = project.inv(*line)
            assert 0 == done.code, done.err
            (box,) = project.boxes()
            assert 1 == done.err.count("inv teardown"), done.err
            assert f"kept  {box}, no charge, powers itself off at" in done.err
            for words in (("push",), ("provision",), ("run", "--only"), ("fetch",)):
                done = project.inv(*words)
                assert 0 == done.code, done.err
                assert 1 == done.err.count(f"kept  {box}, no charge"), words
            assert (
                3
                == (
                    done := project.inv("run", "--keep", "--", "sh", "-c", "exit 3")
                ).code
            )
            assert 1 == done.err.count(f"kept  {box}, no charge"), done.err
            project.inv("teardown")
        gone = project.inv("provision", "push", "teardown")
        assert "kept" not in gone.err

    def test_is_not_said_of_a_box_that_a_later_task_ends(
        self, project: Project
    ) -> None:
        """
        Where a plain task runs a job on what its `pre` has made, nothing is kept.
        """
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

    def test_started_for_its_outputs(self, project: Project) -> None:
        """
        A box that was off, and is started to be read, is off again at the end.
        """
        project.inv("run", "--keep")
        (box,) = project.boxes()
        project.cut_power()
        done = project.inv("fetch")

        assert 0 == done.code, done.err
        assert f"{box} is off again: inv teardown removes its disk" in done.err
        assert "stopped" in project.inv("status").out
        assert "off again" not in project.inv("fetch", "teardown").err
        assert [] == project.boxes()


class TestOff:
    def test_teardown_fetches_from_a_box_that_is_off(self, project: Project) -> None:
        """
        A machine that is started for a teardown is read in the same breath, and goes.
        """
        off_after_its_job(project)
        done = project.inv("teardown")

        assert 0 == done.code, done.err
        assert "42\n" == project.read("results/answer.txt")
        assert [] == project.boxes()

    @pytest.mark.parametrize("line", ["teardown", "fetch"])
    def test_box_that_was_off_is_off_again_after_a_refusal(
        self, project: Project, line: str
    ) -> None:
        """
        What cannot be brought keeps the box, not the machine on.
        """
        project.write("job.sh", f"{JOB}ln -s /etc/passwd results/sly\n")
        off_after_its_job(project)
        (box,) = project.boxes()
        done = project.inv(line)

        assert 73 == done.code
        assert f"{box} is off again" in done.err
        assert "is stopped; its disk is kept" in done.err
        assert "stopped" in project.inv("status").out


def off_after_its_job(project: Project) -> None:
    """Run a job to its end with nobody attached; then the box goes off."""
    project.inv("run", "--detach")
    while "exited" not in project.inv("status").out:
        time.sleep(0.1)
    project.cut_power()
    assert "stopped" in project.inv("status").out


class TestUpToDate:
    def test_outputs_of_another_time(self, project: Project) -> None:
        """
        What an earlier job had left, and nobody has any more, is no reason to run.
        """
        project.write("onebox.toml", CHANGED)
        project.write("job.sh", "mkdir -p results; echo 1 > results/old")
        assert 0 == project.inv("run").code
        project.write("job.sh", JOB)
        (project.root / "results/old").unlink()
        assert "working\n" == project.inv("run").out

        assert "" == project.inv("run").out


class TestReceipt:
    def test_beside_what_came(self, project: Project) -> None:
        """
        A receipt lies beside outputs that came, and makes no folder of its own.
        """
        project.write("onebox.toml", TOML.replace('"results/"', '"none/", "results/"'))
        (project.root / "none").mkdir()
        assert 0 == project.inv("run").code

        assert [] == list((project.root / "none").iterdir())
        receipt = json.loads(project.read("results/onebox-receipt.json"))
        assert {"files": 1, "bytes": 3} == receipt["outputs"]


def test_command_that_is_no_text(project: Project) -> None:
    """
    A command of a kind that no shell takes is refused before there is a box.
    """
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


def test_plan_on_the_line_of_a_run_leaves_no_box(project: Project) -> None:
    """
    `inv plan run` ends as `inv run` does: a plan asks for nothing itself.
    """
    done = project.inv("plan", "run")

    assert 0 == done.code, done.err
    assert "machine, disk, keys: gone" in done.err
    assert "42\n" == project.read("results/answer.txt")
    assert [] == project.boxes()


def test_plan_before_a_push_does_not_hide_the_box(project: Project) -> None:
    """
    `inv plan push` says at its end, as `inv push` does, which box is up.
    """
    done = project.inv("plan", "push")

    (box,) = project.boxes()
    assert f"kept  {box}, no charge, powers itself off at" in done.err


def test_ctrl_c_in_a_user_s_own_handler_names_the_box(project: Project) -> None:
    """Python's own exception counts as the signal: 130, and the box is named."""
    project.write(
        "tasks.py",
        "import onebox\nfrom onebox import *\n\n\n@onebox.stage(onebox.push)\n"
        "def mine(c):\n    raise KeyboardInterrupt\n",
    )
    done = project.inv("mine")

    (box,) = project.boxes()
    assert 130 == done.code
    assert f"({box}) is still up" in done.err


def test_keep_holds_for_the_box_that_was_there(project: Project) -> None:
    """After a teardown on the line, the next run's box is the chain's own again."""
    done = project.inv("run", "--keep", "teardown", "run")

    assert 0 == done.code, done.err
    assert 2 == done.err.count("machine, disk, keys: gone"), done.err
    assert [] == project.boxes()
