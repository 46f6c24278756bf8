"""A finished job is fetched, and does not run again without a message."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import Project
from tests.system.test_terminal import exit_code, start_in_terminal

JOB = """\
echo working
mkdir -p results
echo x >> results/times
"""
# Ctrl-C in the very instant in which the client knows that the job has ended.
AT_ITS_END = """\
import os, signal
from onebox.jobs import follow
describe = follow.describe
def stopped(record):
    os.kill(os.getpid(), signal.SIGINT)
    return describe(record)
follow.describe = stopped
"""


# Ctrl-C while the box is asked to start the job: before that is sent, or after.
AT_ITS_START = """\
import os, signal
from onebox.jobs import remote_job
start = remote_job.start
def stopped(*args, **kwargs):
    if {asked}:
        start(*args, **kwargs)
    os.kill(os.getpid(), signal.SIGINT)
remote_job.start = stopped
"""


@contextmanager
def block_fetches(project: Project) -> Iterator[None]:
    """Make fetches wait, as if another terminal were fetching."""
    folder = os.open(project.root, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def interrupt_fetch(project: Project, *words: str) -> None:
    """Press Ctrl-C when the job has ended and its outputs are not here yet."""
    project.write("job.sh", JOB)
    with block_fetches(project):
        line = project.start(*words)
        project.until("exit 0")
        line.send_signal(signal.SIGINT)
        assert 130 == line.wait(60), project.err
    assert not (project.root / "results/times").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("run",), "inv fetch teardown"),
        (("run", "--keep"), "inv fetch"),
        (("run", "fetch", "teardown"), "inv fetch teardown"),
    ],
)
def test_ctrl_c_in_a_fetch_names_the_fetch_as_next_command(
    project: Project, words: tuple[str, ...], expected: str
) -> None:
    """The next command fetches the outputs; no job runs again."""
    interrupt_fetch(project, *words)

    assert project.err.endswith(f"  next: {expected}\n")
    assert "detached" not in project.err
    assert 0 == project.inv(*expected.split()[1:]).code
    assert "x\n" == project.read("results/times")
    assert len(project.boxes()) == ("--keep" in words)


def test_ctrl_c_between_the_end_of_a_job_and_its_fetch_does_not_detach(
    project: Project, tmp_path: Path
) -> None:
    """No job continues that could be detached from."""
    (tmp_path / "sitecustomize.py").write_text(AT_ITS_END)
    project.environ["PYTHONPATH"] = str(tmp_path)
    done = project.inv("run")

    assert 130 == done.code
    assert "detached" not in done.err
    assert "stopped during fetch" in done.err
    assert done.err.endswith("  next: inv fetch teardown\n")


@pytest.mark.parametrize("asked", [False, True])
def test_ctrl_c_during_the_start_of_a_job_says_that_the_job_may_run(
    project: Project, tmp_path: Path, asked: bool
) -> None:
    """Before the box has answered, `logs` finds out whether the job runs."""
    (tmp_path / "sitecustomize.py").write_text(AT_ITS_START.format(asked=asked))
    project.environ["PYTHONPATH"] = str(tmp_path)
    done = project.inv("run")
    del project.environ["PYTHONPATH"]

    assert 130 == done.code
    assert "it may run" in done.err
    assert "detached" not in done.err
    logs = project.inv("logs")
    assert (0 if asked else 64) == logs.code, logs.err
    again = project.inv(*("fetch", "teardown") if asked else ("run",))
    assert 0 == again.code, again.err
    assert "42\n" == project.read("results/answer.txt")
    assert [] == project.boxes()


def test_run_fetches_a_finished_job_and_says_that_it_runs_again(
    project: Project,
) -> None:
    """
    The results of the finished job are fetched first; then a message says that it
    runs.
    """
    interrupt_fetch(project, "run")
    again = project.inv("run")

    assert 0 == again.code, again.err
    fetched = again.err.index("fetch  ")
    printed = again.err.index(
        "has succeeded; its outputs are fetched now; the same command"
    )
    assert fetched < printed < again.err.index("run   ")
    assert [] == project.boxes()


def test_other_command_than_the_finished_one_is_not_reported_as_running_again(
    project: Project,
) -> None:
    """The message is for the same command only."""
    interrupt_fetch(project, "run")
    other = project.inv("run", "--", "true")

    assert 0 == other.code, other.err
    assert "outputs of the earlier job" in other.err
    assert "runs again" not in other.err


def test_fetched_job_runs_again_without_a_message(project: Project) -> None:
    """If the outputs are here, the user knows that the job has ended."""
    assert 0 == project.inv("run", "--keep").code

    assert "runs again" not in project.inv("run").err


@pytest.mark.parametrize(("answer", "times"), [("yes", "x\nx\n"), ("no", "x\n")])
def test_terminal_asks_before_a_finished_job_runs_again(
    project: Project, answer: str, times: str
) -> None:
    """The answer no ends the chain with the existing results."""
    interrupt_fetch(project, "run")
    with start_in_terminal(project, "run", columns=160) as child:
        child.expect_exact("Type yes to run the same command again")
        child.sendline(answer)
        assert 0 == exit_code(child)

    assert times == project.read("results/times")
    assert [] == project.boxes()


def test_run_with_yes_runs_a_finished_job_again(project: Project) -> None:
    """`inv run --yes` asks nothing."""
    interrupt_fetch(project, "run")
    with start_in_terminal(project, "run", "--yes", columns=160) as child:
        child.expect_exact("the same command runs again")
        assert 0 == exit_code(child)


def test_run_only_fetches_a_result_before_another_command(project: Project) -> None:
    """Results of a successful job are fetched first, also with `--only`."""
    project.inv("provision", "push")
    first = "mkdir -p results; echo one >results/one"
    assert 0 == project.inv("run", "--only", "--", "sh", "-c", first).code
    assert not (project.root / "results").exists()
    over = "rm -r results; mkdir results; echo two >results/two"
    done = project.inv("run", "--only", "--", "sh", "-c", over)

    assert 0 == done.code, done.err
    assert "one\n" == project.read("results/one")
    assert 0 == project.inv("fetch", "teardown").code
    assert "two\n" == project.read("results/two")


def test_teardown_names_boxes_of_other_names(project: Project) -> None:
    """Other boxes of the project are named, with the command to delete them."""
    project.inv("provision", "--name=second")
    (box,) = project.boxes()
    done = project.inv("teardown")

    assert 0 == done.code
    assert [box] == project.boxes()
    assert "census/second is up: " in done.err
    assert "to remove it: inv teardown --name=second" in done.err
    assert [box] == project.boxes()
