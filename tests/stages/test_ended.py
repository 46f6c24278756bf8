"""Jobs whose boxes are gone: their logs, how they ended, and whose they were."""

from __future__ import annotations

import shutil

from ..conftest import Project

FAILS = "echo working; printf 'no newline'; exit 3"


class TestLogs:
    def test_of_a_box_that_is_gone(self, project: Project) -> None:
        """
        `logs` prints the last job's bytes, says where they lie, and has its code.
        """
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

    def test_nobody_was_attached(self, project: Project) -> None:
        """
        A detached job's end is known after its box has gone, too.
        """
        project.write("job.sh", FAILS)
        project.inv("run", "--detach")
        while "exited" not in project.inv("status").out:
            pass
        assert 0 == project.inv("fetch", "teardown").code
        done = project.inv("logs")

        assert (3, "working\nno newline") == (done.code, done.out)

    def test_end_is_not_known(self, project: Project) -> None:
        """
        Without a receipt the log is printed, and no success is made of it.
        """
        project.inv("run")
        (paper,) = project.root.glob(".onebox/jobs/*/receipt.json")
        paper.write_text("{}")
        done = project.inv("logs")

        assert (74, "working\n") == (done.code, done.out)
        assert "its outcome is unknown" in done.err

    def test_each_box_has_its_own(self, project: Project) -> None:
        """
        The last job of another box is not this one's, whether that is up or gone.
        """
        project.inv("run", "--", "echo", "main")
        project.inv("run", "--name=b", "--", "echo", "b")
        project.inv("run", "--name=c", "--keep", "--", "echo", "c")
        for paper in project.root.glob(".onebox/jobs/*/receipt.json"):
            if (paper.parent / "log").read_text() == "c\n":
                paper.unlink()

        assert "main\n" == project.inv("logs").out
        assert "b\n" == project.inv("logs", "--name=b").out
        none = project.inv("logs", "--name=d")
        assert 64 == none.code
        assert "there is no box census/d" in none.err


class TestStatus:
    def test_last_job(self, project: Project) -> None:
        """
        With no box up, `status` says how the last job ended.
        """
        project.write("job.sh", "exit 3")
        project.inv("run")
        project.inv("run", "--name=b", "--", "true")
        (last,) = [
            path.parent.name
            for path in project.root.glob(".onebox/jobs/*/receipt.json")
            if '"exit": 0' in path.read_text()
        ]

        every = project.inv("status").out.splitlines()
        assert [f"    last job {last}: exit 0"] == every[1:]
        _, main = project.inv("status", "--name=main").out.splitlines()
        assert main.endswith(": exit 3")
        shutil.rmtree(project.root / ".onebox")
        assert 1 == len(project.inv("status").out.splitlines())

    def test_one_box(self, project: Project) -> None:
        """
        With --name it is about that box alone; other commands name the others.
        """
        project.inv("provision")
        project.inv("provision", "--name=b")

        assert "/b" in project.inv("status").out
        assert "/main" in project.inv("status").out
        one = project.inv("status", "--name=b").out
        assert "/b" in one
        assert "/main" not in one
        none = project.inv("status", "--name=c").out
        assert "census/c: no box is up\n" == none
        for task in ("cancel", "fetch"):
            done = project.inv(task, "--name=c")
            assert 64 == done.code
            assert "census/b is up: inv logs --name=b\n" in done.err
            assert "census/main is up: inv logs --name=main\n" in done.err


def test_log_is_named(project: Project) -> None:
    """
    A job that fails says where its log is; one that does not has no need to.
    """
    project.write("job.sh", FAILS)
    done = project.inv("run")
    (log,) = project.root.glob(".onebox/jobs/*/log")

    assert f"its log: {log.relative_to(project.root)}\n" in done.err
    assert "its log" not in project.inv("run", "--", "true").err
