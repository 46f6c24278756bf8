"""What was true at one moment does not count at another."""

from __future__ import annotations

import json
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.conftest import JOB, TOML, Project

CHANGED = TOML.replace("[run]\n", '[run]\nwhen = "changed"\n')
WAIT = """\
echo up
while [ ! -e go ]; do sleep 0.1; done
mkdir -p results
cat data.txt | tee results/answer.txt
"""
LOOP = "from onebox import *\nfrom pathlib import Path\n@stage\ndef grid(c):\n"


def home(project: Project) -> Path:
    """Return the home of the only box."""
    (box,) = project.boxes()
    return project.home / "local/boxes" / box / "disk/home"


def record(project: Project) -> Path:
    """Return the file that remembers the box."""
    (path,) = (project.home / "state/projects").glob("*/main/state.json")
    return path


class TestPython:
    def test_teardown_each_time(self, project: Project) -> None:
        """Each teardown(c) ends the box that is there then."""
        project.write(
            "tasks.py",
            LOOP + "    for n in (1, 2):\n"
            "        run(c, command=f'echo {n}', keep=True)\n        teardown(c)\n",
        )
        assert 0 == project.inv("grid").code
        assert [] == project.boxes()

    def test_fetch_each_time(self, project: Project) -> None:
        """Each fetch(c) brings what the job before it has left."""
        project.write(
            "tasks.py",
            LOOP + "    for n in (1, 2):\n"
            "        run(c, command=f'echo {n} > results/n', only=n > 1, keep=True)\n"
            "        fetch(c)\n        print(Path('results/n').read_text(), end='')\n",
        )
        assert "1\n2\n" == project.inv("grid").out
        project.inv("teardown")

    def test_files_written_between_two_jobs(self, project: Project) -> None:
        """What is edited between two jobs is on the box before the second one."""
        project.write(
            "tasks.py",
            LOOP + "    for n in (1, 2):\n        Path('param').write_text(f'{n}\\n')\n"
            "        run(c, command=f': {n}; cat param')\n",
        )
        assert "1\n2\n" == project.inv("grid").out

    def test_into_is_for_one_fetch(self, project: Project) -> None:
        """A folder given to one fetch is not the next job's."""
        project.write(
            "tasks.py",
            LOOP + "    for n in (1, 2):\n"
            "        run(c, command=f'echo {n} > results/n', keep=True)\n"
            "        fetch(c, into=f'out{n}')\n    teardown(c)\n",
        )
        assert 0 == project.inv("grid").code
        assert "1\n" == project.read("out1/results/n")
        assert "2\n" == project.read("out2/results/n")

    def test_keep_is_of_one_box(self, project: Project) -> None:
        """What was said of a box that is gone holds for no other."""
        for first in ("run(c, command='true', keep=True)", "provision(c)"):
            project.write(
                "tasks.py",
                "from onebox import *\nfrom invoke import task\n@task\ndef grid(c):\n"
                f"    {first}\n    teardown(c)\n    run(c, command='echo 2')\n",
            )
            assert 0 == project.inv("grid").code
            assert [] == project.boxes()

    def test_command_without_its_name(self, project: Project) -> None:
        """run(c, "…") is run(c, command="…")."""
        project.write("onebox.toml", "")
        project.write("tasks.py", LOOP + "    run(c, 'echo hello')\n")
        assert (0, "hello\n") == ((d := project.inv("grid")).code, d.out)


class TestChanged:
    def test_outputs_of_another_command(self, project: Project) -> None:
        """Outputs that another job has brought since are not the job's own."""
        project.write("onebox.toml", CHANGED)
        project.inv("run")
        project.inv("run", "--", "sh", "-c", "echo bogus > results/answer.txt")
        assert "bogus\n" == project.read("results/answer.txt")

        assert "working\n" == project.inv("run").out
        assert "42\n" == project.read("results/answer.txt")

    def test_outputs_of_a_failed_job(self, project: Project) -> None:
        """To take back an edit that failed is no way to its outputs."""
        project.write("onebox.toml", CHANGED)
        project.inv("run")
        project.write("job.sh", JOB.replace("42", "99") + "exit 3\n")
        assert 3 == project.inv("run").code
        project.write("job.sh", JOB)

        assert "working\n" == project.inv("run").out
        assert "42\n" == project.read("results/answer.txt")

    def test_outputs_not_here(self, project: Project) -> None:
        """A job whose outputs were not brought is not up to date."""
        project.write("onebox.toml", CHANGED)
        project.inv("provision")
        assert 0 == project.inv("push", "run", "--only").code
        assert not (project.root / "results").exists()

        assert "working\n" == project.inv("run").out
        assert "42\n" == project.read("results/answer.txt")
        project.inv("teardown")

    def test_cancelled_with_exit_0(self, project: Project) -> None:
        """A job that was told to end has not succeeded, whatever its code."""
        project.write("onebox.toml", CHANGED)
        project.write("job.sh", "trap 'exit 0' TERM\necho up\nsleep 60 & wait\n")
        line = project.start("run")
        project.until("up\n")
        project.inv("cancel")
        assert 0 == line.wait(60)

        project.write("job.sh", "trap 'exit 0' TERM\necho up\nsleep 60 & wait\n")
        assert "has not succeeded" in project.inv("plan").out

    def test_image_of_another_day(self, project: Project) -> None:
        """Where the image is not today's, the job is not up to date."""
        toml = CHANGED.replace("job.sh", "src/job.sh") + '[push]\ncode = ["src/"]\n'
        project.write("onebox.toml", toml)
        project.write("src/job.sh", "mkdir -p results; cat ~/tool > results/t; :\n")
        project.inv("run")
        project.write("setup.sh", "echo v1 > ~/tool\n")
        project.write("onebox.toml", toml + '[image]\nsetup = "setup.sh"\n')

        assert 0 == project.inv("run").code
        assert "v1\n" == project.read("results/t")

    def test_same_change_on_both_sides(self, project: Project) -> None:
        """The receipt has the files that were on the box, not an earlier push's."""
        project.write("onebox.toml", CHANGED)
        project.write("job.sh", "mkdir -p results; tee results/answer.txt < v\n")
        project.write("v", "one\n")
        project.inv("provision", "push")
        (home(project) / "work/v").write_text("two\n")
        project.write("v", "two\n")
        time.sleep(0.3)
        project.inv("plan")
        time.sleep(0.3)
        project.inv("plan")
        assert "two\n" == project.inv("run").out
        project.write("v", "one\n")

        assert "one\n" == project.inv("run").out
        project.inv("teardown")

    def test_memory_lost(self, project: Project) -> None:
        """Where nobody knows what was fetched, the job is not up to date."""
        project.write("onebox.toml", CHANGED)
        project.inv("run")
        (project.root / ".onebox/fetched/main/fetched.paths").unlink()
        shutil.rmtree(project.root / "results")

        assert "working\n" == project.inv("run").out
        assert "42\n" == project.read("results/answer.txt")


class TestHeld:
    def test_state_gone(self, project: Project) -> None:
        """Of a box found by its tags alone nobody says that it is empty."""
        project.write("job.sh", WAIT)
        project.inv("run", "--detach")
        shutil.rmtree(project.home / "state")

        assert 64 == project.inv("run", "teardown").code
        assert 1 == len(project.boxes())

    def test_outputs_called_otherwise(self, project: Project) -> None:
        """A job's outputs are those that it was started with."""
        project.inv("run", "--detach")
        project.inv("logs")
        project.write("onebox.toml", TOML.replace("results/", "out/"))

        assert 73 == project.inv("teardown").code
        assert 0 == project.inv("fetch", "teardown").code
        assert "42\n" == project.read("results/answer.txt")

    def test_clock_set_back(self, project: Project) -> None:
        """The latest job is the one that was started last, whatever the clock says."""
        project.write("job.sh", WAIT)
        project.inv("run", "--keep", "--", "true")
        (started,) = home(project).parent.rglob("jobs/*/started.json")
        data = json.loads(started.read_text())
        started.write_text(json.dumps({**data, "at": data["at"] + 3600}))
        project.inv("run", "--detach")

        assert 64 == project.inv("teardown").code
        assert 1 == len(project.boxes())

    def test_clock_set_back_here(self, project: Project) -> None:
        """A box that is gone is not waited for until the clock is right."""
        project.inv("provision")
        path = record(project)
        data = json.loads(path.read_text())
        path.write_text(json.dumps({**data, "created": data["created"] + 3600}))
        project.cut_power()
        shutil.rmtree(project.home / "local/boxes")

        assert 0 == project.inv("teardown", timeout=20).code

    def test_off_and_removed_here(self, project: Project) -> None:
        """A disk is the last copy of outputs that have been removed here."""
        project.inv("run", "--keep")
        project.cut_power()
        shutil.rmtree(project.root / "results")

        assert 73 == project.inv("teardown").code
        assert 0 == project.inv("fetch", "teardown").code
        assert "42\n" == project.read("results/answer.txt")

    def test_at_another_provider(self, project: Project) -> None:
        """A box elsewhere is not forgotten where it is not looked for."""
        project.inv("provision")
        path = record(project)
        data = json.loads(path.read_text())
        path.write_text(json.dumps({**data, "provider": "gcp", "box": "ob-there"}))
        project.cut_power()
        shutil.rmtree(project.home / "local/boxes")

        assert 0 != project.inv("teardown", "--provider=local").code
        assert "ob-there" == json.loads(path.read_text())["box"]
        data = project.inv("status", "--provider=local")
        assert "census/main (ob-there) may be on gcp" in data.out
        assert "inv teardown --name=main --provider=gcp" in data.out

    @pytest.mark.parametrize(
        "text",
        ['{"format": 1, "box":', '{"format": 1, "box": "ob-x", "provider": "azure"}'],
    )
    def test_another_box_of_which_nothing_is_known(
        self, project: Project, text: str
    ) -> None:
        """What is written of another box, and cannot be read, is no reason to fail."""
        project.inv("provision")
        other = record(project).parent.parent / "other" / "state.json"
        other.parent.mkdir()
        other.write_text(text)
        data = project.inv("status")

        assert 0 == data.code, data.err
        assert "census/main" in data.out
        assert "azure" in data.out or "corrupt" in data.err
        assert 0 == project.inv("teardown", "--all").code
        assert [] == project.boxes()

    def test_all_but_one(self, project: Project) -> None:
        """--all goes on after a box that has to stay."""
        project.inv("run", "--detach", "--name=a")
        project.inv("provision", "--name=b")
        project.inv("logs", "--name=a")

        assert 73 == project.inv("teardown", "--all").code
        assert 1 == len(project.boxes())

    def test_state_damaged(self, project: Project) -> None:
        """A line that fails gives up no outputs that nobody has looked at."""
        project.write("data/x", "x")
        project.write("onebox.toml", TOML + '[push]\ndata = ["data/"]\n')
        project.inv("run", "--detach")
        project.inv("logs")
        record(project).write_text("{")
        shutil.rmtree(project.root / "data")
        project.inv("run", "teardown")

        assert 1 == len(project.boxes())


class TestTerminals:
    def test_two_on_one_log(self, project: Project) -> None:
        """Two that follow one job show all of it, and write it down once."""
        project.write("job.sh", "for i in 1 2 3 4 5 6; do echo $i; sleep 0.5; done\n")
        line = project.start("run", "--keep")
        project.until("2\n")
        other = project.inv("logs")
        assert 0 == line.wait(60)

        (log,) = (project.root / ".onebox/jobs").glob("*/log")
        assert log.read_text() == other.out == project.out == "1\n2\n3\n4\n5\n6\n"
        assert 0 == project.inv("logs").code
        project.inv("teardown")

    def test_asked_to_stay_meanwhile(self, project: Project) -> None:
        """A box that a chain has left stays once --keep was said of it."""
        project.write("job.sh", WAIT)
        project.write("data.txt", "x\n")
        line = project.start("run")
        project.until("up\n")
        line.send_signal(signal.SIGINT)
        assert 130 == line.wait(30)
        (home(project) / "work/go").touch()
        while "exited" not in project.inv("status").out:
            time.sleep(0.1)

        assert 0 == project.inv("run", "--keep").code
        assert 0 == project.inv("run").code
        assert 1 == len(project.boxes())
