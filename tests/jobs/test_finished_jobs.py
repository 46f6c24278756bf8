"""Jobs whose boxes are gone: their logs, their ends, and their boxes' names."""

from __future__ import annotations

import shutil

from tests.conftest import Project

FAILS = "echo working; printf 'no newline'; exit 3"


class TestLogs:
    def test_logs_shows_the_last_job_of_a_gone_box(self, project: Project) -> None:
        """`logs` prints the log, names its file, and exits with the job's code."""
        project.write("job.sh", FAILS)
        assert 3 == project.inv("run").code
        (log,) = project.root.glob(".onebox/jobs/*/log")
        done = project.inv("logs")

        assert (3, "working\nno newline") == (done.code, done.out)
        first, _, line = done.err.splitlines()
        assert f"there is no box census/main: job {log.parent.name}, from " in first
        assert first.endswith(f".onebox/jobs/{log.parent.name}/log")
        assert line.startswith("run        ✗ ")
        assert line.endswith("exit 3")

    def test_logs_shows_a_detached_job_of_a_gone_box(self, project: Project) -> None:
        """The end of a detached job is also known after its box is gone."""
        project.write("job.sh", FAILS)
        project.inv("run", "--detach")
        while "running" in project.inv("status").out.split("job ")[-1]:
            pass
        assert 0 == project.inv("fetch", "teardown").code
        done = project.inv("logs")

        assert (3, "working\nno newline") == (done.code, done.out)

    def test_logs_passes_over_files_beside_the_folders_of_boxes(
        self, project: Project
    ) -> None:
        """The rates of earlier pushes are in a file there; small pushes have none."""
        assert 0 == project.inv("run").code
        (folder,) = (project.home / "state" / "projects").iterdir()
        (folder / "push_rates.json").write_text("{}")

        done = project.inv("logs", "--tail=1")
        assert 0 == done.code, done.err
        assert 0 == project.inv("status").code
        assert 0 == project.inv("history").code
        assert 0 == project.inv("cleanup").code

    def test_logs_of_a_job_without_a_receipt_does_not_exit_with_0(
        self, project: Project
    ) -> None:
        """The log is printed, but an unknown end is not a success."""
        project.inv("run")
        (receipt,) = project.root.glob(".onebox/jobs/*/receipt.json")
        receipt.write_text("{}")
        done = project.inv("logs")

        assert (74, "working\n") == (done.code, done.out)
        assert "its outcome is unknown" in done.err

    def test_logs_of_one_box_does_not_show_a_job_of_another(
        self, project: Project
    ) -> None:
        """Each box name has its own last job, whether the box is up or gone."""
        project.inv("run", "--", "echo", "main")
        project.inv("run", "--name=b", "--", "echo", "b")
        project.inv("run", "--name=c", "--keep", "--", "echo", "c")
        for receipt in project.root.glob(".onebox/jobs/*/receipt.json"):
            if (receipt.parent / "log").read_text() == "c\n":
                receipt.unlink()

        assert "main\n" == project.inv("logs").out
        assert "b\n" == project.inv("logs", "--name=b").out
        none = project.inv("logs", "--name=d")
        assert 64 == none.code
        assert "there is no box census/d" in none.err


class TestStatus:
    def test_status_without_a_box_shows_the_end_of_the_last_job(
        self, project: Project
    ) -> None:
        """If no box is up, `status` shows how the last job ended."""
        project.write("job.sh", "exit 3")
        project.inv("run")
        project.inv("run", "--name=b", "--", "true")
        (last,) = [
            path.parent.name
            for path in project.root.glob(".onebox/jobs/*/receipt.json")
            if '"exit": 0' in path.read_text()
        ]

        every = project.inv("status").out.splitlines()
        assert [f"    last job {last} on census/b: succeeded"] == every[1:]
        _, main = project.inv("status", "--name=main").out.splitlines()
        assert main.endswith(": failed, exit 3")
        shutil.rmtree(project.root / ".onebox")
        assert 1 == len(project.inv("status").out.splitlines())

    def test_status_with_a_name_shows_that_box_only(self, project: Project) -> None:
        """Other commands name the other boxes."""
        project.inv("provision")
        project.inv("provision", "--name=b")

        every = project.inv("status").out.splitlines()
        titles = [line.split()[0] for line in every if not line.startswith(" ")]
        assert ["census/b", "census/main"] == titles
        one = project.inv("status", "--name=b").out
        assert "/b" in one
        assert "/main" not in one
        none = project.inv("status", "--name=c").out
        assert "census/c: no box is up\n" == none
        for task in ("cancel", "fetch"):
            done = project.inv(task, "--name=c")
            assert 64 == done.code
            assert "census/b is up: no charge, powers itself off in " in done.err
            assert "census/main is up: no charge, powers itself off in " in done.err
            assert f"  next: inv {task} --name=b\n" in done.err
            assert f"        inv {task} --name=main\n" in done.err


def test_failed_job_names_its_log_file(project: Project) -> None:
    """A job that succeeds does not."""
    project.write("job.sh", FAILS)
    done = project.inv("run")
    (log,) = project.root.glob(".onebox/jobs/*/log")

    assert f"its log: {log.relative_to(project.root)}\n" in done.err
    assert "its log" not in project.inv("run", "--", "true").err
