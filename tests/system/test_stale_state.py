"""Facts of an earlier moment are not used at a later one."""

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


def box_home(project: Project) -> Path:
    """Return the home directory of the only box."""
    (box,) = project.boxes()
    return project.home / "local/boxes" / box / "disk/home"


def record_file(project: Project) -> Path:
    """Return the file with the record of the box."""
    (path,) = (project.home / "state/projects").glob("*/main/state.json")
    return path


class TestPython:
    def test_each_teardown_call_deletes_the_current_box(self, project: Project) -> None:
        """teardown(c) can be called several times."""
        project.write(
            "tasks.py",
            LOOP + "    for n in (1, 2):\n"
            "        run(c, command=f'echo {n}', keep=True)\n        teardown(c)\n",
        )
        assert 0 == project.inv("grid").code
        assert [] == project.boxes()

    def test_each_fetch_call_fetches_the_last_job(self, project: Project) -> None:
        """fetch(c) brings the outputs of the job before it."""
        project.write(
            "tasks.py",
            LOOP + "    for n in (1, 2):\n"
            "        run(c, command=f'echo {n} > results/n', only=n > 1, keep=True)\n"
            "        fetch(c)\n        print(Path('results/n').read_text(), end='')\n",
        )
        assert "1\n2\n" == project.inv("grid").out
        project.inv("teardown")

    def test_files_edited_between_two_jobs_are_pushed(self, project: Project) -> None:
        """The second job gets the edited files."""
        project.write(
            "tasks.py",
            LOOP + "    for n in (1, 2):\n        Path('param').write_text(f'{n}\\n')\n"
            "        run(c, command=f': {n}; cat param')\n",
        )
        assert "1\n2\n" == project.inv("grid").out

    def test_into_of_a_fetch_holds_for_that_fetch(self, project: Project) -> None:
        """The next job's outputs go to the usual folder."""
        project.write(
            "tasks.py",
            LOOP + "    for n in (1, 2):\n"
            "        run(c, command=f'echo {n} > results/n', keep=True)\n"
            "        fetch(c, into=f'out{n}')\n    teardown(c)\n",
        )
        assert 0 == project.inv("grid").code
        assert "1\n" == project.read("out1/results/n")
        assert "2\n" == project.read("out2/results/n")

    def test_keep_holds_for_one_box(self, project: Project) -> None:
        """A later box on the line is temporary again."""
        for first in ("run(c, command='true', keep=True)", "provision(c)"):
            project.write(
                "tasks.py",
                "from onebox import *\nfrom invoke import task\n@task\ndef grid(c):\n"
                f"    {first}\n    teardown(c)\n    run(c, command='echo 2')\n",
            )
            assert 0 == project.inv("grid").code
            assert [] == project.boxes()

    def test_command_can_be_a_positional_argument(self, project: Project) -> None:
        """run(c, "…") is run(c, command="…")."""
        project.write("onebox.toml", "")
        project.write("tasks.py", LOOP + "    run(c, 'echo hello')\n")
        assert (0, "hello\n") == ((d := project.inv("grid")).code, d.out)


class TestChanged:
    def test_outputs_of_another_job_do_not_make_a_job_up_to_date(
        self, project: Project
    ) -> None:
        """The outputs of the last job are here."""
        project.write("onebox.toml", CHANGED)
        project.inv("run")
        project.inv("run", "--", "sh", "-c", "echo bogus > results/answer.txt")
        assert "bogus\n" == project.read("results/answer.txt")

        assert "working\n" == project.inv("run").out
        assert "42\n" == project.read("results/answer.txt")

    def test_undoing_a_failed_edit_does_not_make_a_job_up_to_date(
        self, project: Project
    ) -> None:
        """The outputs here are those of the failed job."""
        project.write("onebox.toml", CHANGED)
        project.inv("run")
        project.write("job.sh", JOB.replace("42", "99") + "exit 3\n")
        assert 3 == project.inv("run").code
        project.write("job.sh", JOB)

        assert "working\n" == project.inv("run").out
        assert "42\n" == project.read("results/answer.txt")

    def test_job_whose_outputs_were_not_fetched_is_not_up_to_date(
        self, project: Project
    ) -> None:
        """The job runs again."""
        project.write("onebox.toml", CHANGED)
        project.inv("provision")
        assert 0 == project.inv("push", "run", "--only").code
        assert not (project.root / "results").exists()

        assert "working\n" == project.inv("run").out
        assert "42\n" == project.read("results/answer.txt")
        project.inv("teardown")

    def test_cancelled_job_with_exit_code_0_has_not_succeeded(
        self, project: Project
    ) -> None:
        """The cause counts, whatever the code is."""
        project.write("onebox.toml", CHANGED)
        project.write("job.sh", "trap 'exit 0' TERM\necho up\nsleep 60 & wait\n")
        line = project.start("run")
        project.until("up\n")
        project.inv("cancel")
        assert 0 == line.wait(60)

        project.write("job.sh", "trap 'exit 0' TERM\necho up\nsleep 60 & wait\n")
        assert "has not succeeded" in project.inv("plan").out

    def test_job_of_another_image_is_not_up_to_date(self, project: Project) -> None:
        """The image of the last run and the current one differ."""
        toml = CHANGED.replace("job.sh", "src/job.sh") + '[push]\ncode = ["src/"]\n'
        project.write("onebox.toml", toml)
        project.write("src/job.sh", "mkdir -p results; cat ~/tool > results/t; :\n")
        project.inv("run")
        project.write("setup.sh", "echo v1 > ~/tool\n")
        project.write("onebox.toml", toml + '[image]\nsetup = "setup.sh"\n')

        assert 0 == project.inv("run").code
        assert "v1\n" == project.read("results/t")

    def test_receipt_lists_the_files_that_were_on_the_box(
        self, project: Project
    ) -> None:
        """The files of an earlier push do not count."""
        project.write("onebox.toml", CHANGED)
        project.write("job.sh", "mkdir -p results; tee results/answer.txt < v\n")
        project.write("v", "one\n")
        project.inv("provision", "push")
        (box_home(project) / "work/v").write_text("two\n")
        project.write("v", "two\n")
        time.sleep(0.3)
        project.inv("plan")
        time.sleep(0.3)
        project.inv("plan")
        assert "two\n" == project.inv("run").out
        project.write("v", "one\n")

        assert "one\n" == project.inv("run").out
        project.inv("teardown")

    def test_job_is_not_up_to_date_if_the_fetched_files_are_unknown(
        self, project: Project
    ) -> None:
        """The record of fetched files was lost."""
        project.write("onebox.toml", CHANGED)
        project.inv("run")
        (project.root / ".onebox/fetched/main/fetched.paths").unlink()
        shutil.rmtree(project.root / "results")

        assert "working\n" == project.inv("run").out
        assert "42\n" == project.read("results/answer.txt")


class TestOutputsOnTheBox:
    def test_box_found_by_its_tags_is_not_reported_as_empty(
        self, project: Project
    ) -> None:
        """The jobs of a box that was found by its tags are unknown until it answers."""
        project.write("job.sh", WAIT)
        project.inv("run", "--detach")
        shutil.rmtree(project.home / "state")

        assert 75 == project.inv("run", "teardown").code
        assert 1 == len(project.boxes())

    def test_outputs_of_a_job_are_those_it_was_started_with(
        self, project: Project
    ) -> None:
        """A later change of the setting does not count."""
        project.inv("run", "--detach")
        project.inv("logs")
        project.write("onebox.toml", TOML.replace("results/", "out/"))

        assert 73 == project.inv("teardown").code
        assert 0 == project.inv("fetch", "teardown").code
        assert "42\n" == project.read("results/answer.txt")

    def test_latest_job_is_the_last_started_one_whatever_the_clock_says(
        self, project: Project
    ) -> None:
        """The box's clock was set back."""
        project.write("job.sh", WAIT)
        project.inv("run", "--keep", "--", "true")
        (started,) = box_home(project).parent.rglob("jobs/*/started.json")
        data = json.loads(started.read_text())
        started.write_text(json.dumps({**data, "at": data["at"] + 3600}))
        project.inv("run", "--detach")

        assert 64 == project.inv("teardown").code
        assert 1 == len(project.boxes())

    def test_gone_box_is_not_waited_for_after_the_local_clock_was_set_back(
        self, project: Project
    ) -> None:
        """The wait does not last until the clock is right again."""
        project.inv("provision")
        path = record_file(project)
        data = json.loads(path.read_text())
        path.write_text(json.dumps({**data, "created": data["created"] + 3600}))
        project.cut_power()
        shutil.rmtree(project.home / "local/boxes")

        assert 0 == project.inv("teardown", timeout=20).code

    def test_disk_is_kept_if_its_outputs_were_removed_here(
        self, project: Project
    ) -> None:
        """The disk has the last copy."""
        project.inv("run", "--keep")
        project.cut_power()
        shutil.rmtree(project.root / "results")

        assert 73 == project.inv("teardown").code
        assert 0 == project.inv("fetch", "teardown").code
        assert "42\n" == project.read("results/answer.txt")

    def test_box_at_another_provider_is_not_forgotten(self, project: Project) -> None:
        """It stays recorded if its provider is not queried."""
        project.inv("provision")
        path = record_file(project)
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
    def test_unreadable_record_of_another_box_is_no_error(
        self, project: Project, text: str
    ) -> None:
        """A damaged record of another box does not fail the command."""
        project.inv("provision")
        other = record_file(project).parent.parent / "other" / "state.json"
        other.parent.mkdir()
        other.write_text(text)
        data = project.inv("status")

        assert 0 == data.code, data.err
        assert "census/main" in data.out
        assert "azure" in data.out or "corrupt" in data.err
        assert 0 == project.inv("teardown", "--all").code
        assert [] == project.boxes()

    def test_teardown_all_continues_after_a_box_that_must_stay(
        self, project: Project
    ) -> None:
        """The other boxes are deleted."""
        project.inv("run", "--detach", "--name=a")
        project.inv("provision", "--name=b")
        project.inv("logs", "--name=a")

        assert 73 == project.inv("teardown", "--all").code
        assert 1 == len(project.boxes())

    def test_failed_line_with_damaged_state_keeps_unchecked_outputs(
        self, project: Project
    ) -> None:
        """Outputs that were not checked keep the box."""
        project.write("data/x", "x")
        project.write("onebox.toml", TOML + '[push]\ndata = ["data/"]\n')
        project.inv("run", "--detach")
        project.inv("logs")
        record_file(project).write_text("{")
        shutil.rmtree(project.root / "data")
        project.inv("run", "teardown")

        assert 1 == len(project.boxes())


class TestTerminals:
    def test_two_commands_can_follow_one_job(self, project: Project) -> None:
        """Both show the whole log, and one copy is written."""
        project.write("job.sh", "for i in 1 2 3 4 5 6; do echo $i; sleep 0.5; done\n")
        line = project.start("run", "--keep")
        project.until("2\n")
        other = project.inv("logs")
        assert 0 == line.wait(60)

        (log,) = (project.root / ".onebox/jobs").glob("*/log")
        assert log.read_text() == other.out == project.out == "1\n2\n3\n4\n5\n6\n"
        assert 0 == project.inv("logs").code
        project.inv("teardown")

    def test_keep_in_another_terminal_holds_for_the_box_of_a_killed_chain(
        self, project: Project
    ) -> None:
        """A box that a killed chain has left stays after --keep in another terminal."""
        project.write("job.sh", WAIT)
        project.write("data.txt", "x\n")
        line = project.start("run")
        project.until("up\n")
        line.send_signal(signal.SIGINT)
        assert 130 == line.wait(30)
        (box_home(project) / "work/go").touch()
        while "running" in project.inv("status").out.split("job ")[-1]:
            time.sleep(0.1)

        assert 0 == project.inv("run", "--keep").code
        assert 0 == project.inv("run").code
        assert 1 == len(project.boxes())


def test_box_of_an_earlier_version_is_still_read_and_deleted(project: Project) -> None:
    """Its record has old names of fields. Otherwise it could not even be deleted."""
    assert 0 == project.inv("provision").code
    (record,) = project.home.glob("local/boxes/*/record.json")
    text = record.read_text("utf-8")
    for old, new in (
        ("expires", "deadline"),
        ("price", "machine_price"),
        ("on_demand", "machine_on_demand"),
    ):
        inside = "tags" if old == "expires" else "offer"
        document = json.loads(text)
        document[inside][old] = document[inside].pop(new)
        text = json.dumps(document)
    record.write_text(text, "utf-8")
    done = project.inv("teardown")

    assert 0 == done.code, done.err
    assert [] == project.boxes()
