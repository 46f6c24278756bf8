"""A command line works without stdin, stdout and stderr; its exit code stays right."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import Done, Project


def closed(project: Project, redirections: str, *words: str) -> Done:
    """Run an `onebox` line with these redirections of bash."""
    done = subprocess.run(
        [
            *("bash", "-c", f'exec "$@" {redirections}', "-"),
            *(sys.executable, "-m", "onebox", *words),
        ],
        cwd=project.root,
        env=project.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("redirections", ["<&- >&-", "<&-", "<&- >&- 2>&-"])
def test_local_box_starts_without_standard_streams(
    project: Project, redirections: str
) -> None:
    """The lock that the box inherits has none of their descriptors."""
    done = closed(project, redirections, "run")

    assert 0 == done.code, done.err
    assert "42\n" == project.read("results/answer.txt")
    assert [] == project.boxes()


@pytest.mark.parametrize(
    ("job", "code"), [("echo out", 0), ("true", 0), ("echo out; exit 7", 7)]
)
def test_exit_code_of_a_job_is_its_own_without_stdout(
    project: Project, job: str, code: int
) -> None:
    """Its output is in the log, so nothing is lost."""
    project.write("job.sh", job)
    done = closed(project, ">&-", "run")

    assert code == done.code, done.err
    assert "onebox[" not in done.err
    assert (
        "out\n" * ("out" in job)
        == next(project.root.glob(".onebox/jobs/*/log")).read_text()
    )


def test_stage_that_prints_nothing_needs_no_stdout(project: Project) -> None:
    """It ends with 0."""
    for line in ("provision", "push", "teardown"):
        done = closed(project, ">&-", line)
        assert 0 == done.code, (line, done.err)


@pytest.mark.fast
@pytest.mark.parametrize(
    "line", ["history", "plan", "status", "plan --json", "doctor", "init --example"]
)
def test_requested_output_needs_stdout(project: Project, line: str) -> None:
    """What was asked for could not be printed: the exit code is 74."""
    done = closed(project, ">&-", *line.split())

    assert 74 == done.code, done.err
    assert "onebox[74]: stdout cannot be written: it is closed\n" in done.err
