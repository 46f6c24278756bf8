"""`inv logs` with --tail, --since, --no-follow and --job."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from tests.conftest import Project
from tests.system.lines import let_job_continue

TALKS = "for n in 1 2 3 4; do echo line $n; done; "
WAITS = "while [ ! -e go ]; do sleep 0.1; done; rm go; echo end; exit 4"


def job_ids(project: Project) -> list[str]:
    """Return the ids of all jobs with a log here, oldest first."""
    return sorted(path.parent.name for path in project.root.glob(".onebox/jobs/*/log"))


def until_printed(project: Project, text: str) -> None:
    """Wait until the running job has printed *text*."""
    end = time.monotonic() + 120
    while text not in project.inv("logs", "--no-follow").out:
        assert time.monotonic() < end


@pytest.fixture
def running(project: Project) -> Iterator[Project]:
    """A project whose detached job has printed four lines and waits."""
    project.write("job.sh", TALKS + WAITS)
    assert 0 == project.inv("run", "--detach").code
    until_printed(project, "line 4\n")
    yield project


class TestRunningJob:
    def test_no_follow_prints_the_log_up_to_now_and_exits_with_0(
        self, running: Project
    ) -> None:
        """The job runs on, and the message says how to follow it."""
        done = running.inv("logs", "--no-follow")

        assert (0, "line 1\nline 2\nline 3\nline 4\n") == (done.code, done.out)
        assert "still runs; inv logs follows it" in done.err
        assert "running" in running.inv("status").out

    def test_tail_prints_the_last_lines_and_follows(self, running: Project) -> None:
        """The exit code is the job's; the whole log is here for plain `inv logs`."""
        tail = running.inv("logs", "--tail=2", "--no-follow")
        assert (0, "line 3\nline 4\n") == (tail.code, tail.out)
        line = running.start("logs", "--tail", "1")
        running.until("line 4\n")
        let_job_continue(running)
        assert 4 == line.wait(60)
        assert "line 4\nend\n" == running.out

        whole = running.inv("logs")
        assert (4, "line 1\nline 2\nline 3\nline 4\nend\n") == (whole.code, whole.out)

    def test_since_prints_what_was_printed_later(self, running: Project) -> None:
        """The box knows when the job has printed what; --tail limits it further."""
        time.sleep(2.5)
        let_job_continue(running)
        until_ended(running)
        recent = running.inv("logs", "--since=2 s")
        assert 4 == recent.code
        assert recent.out in ("", "end\n")
        every = running.inv("logs", "--since", "10m")
        assert (4, "line 1\nline 2\nline 3\nline 4\nend\n") == (every.code, every.out)
        both = running.inv("logs", "--since=10m", "--tail=1")
        assert (4, "end\n") == (both.code, both.out)


def until_ended(project: Project) -> None:
    """Wait until the job has ended."""
    while " running" in project.inv("status").out.split("    job ")[-1]:
        time.sleep(0.1)


class TestGoneBox:
    def test_flags_select_from_the_local_log(self, project: Project) -> None:
        """Also a log without a newline at its end is byte for byte the same."""
        project.write("job.sh", TALKS + "printf end; exit 4")
        assert 4 == project.inv("run").code
        assert [] == project.boxes()
        for flags, out in (
            (("--tail=2",), "line 4\nend"),
            (("--tail=0",), ""),
            (
                (f"--tail={'9' * 5000}", "--since=1h"),
                "line 1\nline 2\nline 3\nline 4\nend",
            ),
            (("--tail=99", "--no-follow"), "line 1\nline 2\nline 3\nline 4\nend"),
            (("--since=1h",), "line 1\nline 2\nline 3\nline 4\nend"),
            (("--since=0 s",), ""),
            (("--since=1h", "--tail=1"), "end"),
        ):
            done = project.inv("logs", *flags)
            assert (4, out) == (done.code, done.out), flags

    def test_log_without_times_is_printed_whole(self, project: Project) -> None:
        """An earlier version recorded no times; one line says so."""
        assert 0 == project.inv("run").code
        (times,) = project.root.glob(".onebox/jobs/*/times.json")
        for damage in (None, b"{", json.dumps([["a"]]).encode()):
            if damage is None:
                times.unlink()
            else:
                times.write_bytes(damage)
            done = project.inv("logs", "--since=0 s")
            assert (0, "working\n") == (done.code, done.out)
            assert 1 == done.err.count("no times are recorded for the output of job")

    def test_job_names_an_earlier_job(self, project: Project) -> None:
        """Its exit code is the one of `logs`, whether its box is up or gone."""
        project.inv("run", "--", "sh", "-c", "echo first; exit 5")
        project.inv("run", "--keep", "--", "echo", "second")
        first, second = job_ids(project)

        done = project.inv("logs", f"--job={first}")
        assert (5, "first\n") == (done.code, done.out)
        assert "there is no box" not in done.err
        done = project.inv("logs", f"--job={second}", "--tail=1")
        assert (0, "second\n") == (done.code, done.out)

    def test_job_on_the_box_is_found_without_a_local_log(
        self, project: Project
    ) -> None:
        """An earlier detached job has its log on the box only."""
        project.inv("provision")
        project.inv("run", "--detach", "--", "echo", "first")
        until_ended(project)
        project.inv("logs")
        (first,) = job_ids(project)
        project.inv("run", "--detach", "--", "echo", "second")
        until_ended(project)
        for path in project.root.glob(f".onebox/jobs/{first}/*"):
            path.unlink()

        done = project.inv("logs", f"--job={first}")
        assert (0, "first\n") == (done.code, done.out)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--tail=many", "--tail: expected a number of lines, got 'many'"),
        ("--tail=-1", "--tail: expected a number of lines"),
        ("--since=today", "--since: expected a duration"),
        ("--job=../../etc", "--job: ../../etc is not the id of a job"),
        ("--job=20200101-000000-abcd", "there is no job 20200101-000000-abcd"),
    ],
)
def test_wrong_value_is_one_line_with_the_right_command(
    project: Project, flag: str, message: str
) -> None:
    """The exit code is 64, and the command to type next is named."""
    done = project.inv("logs", flag)

    assert (64, "") == (done.code, done.out)
    assert message in done.err
    assert "next: inv " in done.err


def test_damaged_files_beside_a_log_are_passed_over(project: Project) -> None:
    """A project that was cloned may bring any file in .onebox; none is a traceback."""
    job, deep = "20260101-000000-abcd", "[" * 100_000 + "]" * 100_000
    folder = project.root / ".onebox" / "jobs" / job
    folder.mkdir(parents=True)
    (folder / "log").write_text("one\ntwo\n")
    for name, text in (
        ("receipt.json", deep),
        ("times.json", deep),
        ("times.json", "[[0, 1e999]]"),
        ("times.json", "[[0, -5]]"),
        ("gaps.json", deep),
        ("gaps.json", "[[0.5, 1.5]]"),
        ("gaps.json", "[[NaN, 1e999], [-5, -2]]"),
    ):
        (folder / name).write_text(text)
        words = ("history",) if name == "receipt.json" else ("logs", f"--job={job}")
        more = ("--since=10m", "--tail=5") if name != "receipt.json" else ()
        done = project.inv(*words, *more)
        assert "Traceback" not in done.err, (name, text[:20], done.err[-500:])
        assert job in done.out + done.err
        assert done.code == (0 if words == ("history",) else 74), done.err
        (folder / name).unlink()
