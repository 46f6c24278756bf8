"""A flag of onebox after the command belongs to the job, and a warning says so."""

from __future__ import annotations

import json

import pytest

from tests.conftest import Project


@pytest.mark.fast
@pytest.mark.parametrize(
    ("words", "late", "line"),
    [
        (
            ["python", "job.py", "0", "--vm=large"],
            "--vm=large comes after the command, so it goes to the job",
            "--vm=large python job.py 0",
        ),
        (
            ["--name=b", "python", "job.py", "--vm", "large", "--spot", "--", "--keep"],
            "--vm=large --spot come after the command, so they go to the job",
            "--name=b --vm=large --spot python job.py -- --keep",
        ),
    ],
)
def test_the_plan_names_the_line_that_has_the_flag(
    project: Project, words: list[str], late: str, line: str
) -> None:
    """The text and the document have the same warning; the job keeps its words."""
    project.write("job.py", "")
    warning = f"{late}; for the box: onebox plan"
    planned = project.onebox("plan", *words)
    assert 0 == planned.code, planned.err
    assert f"! {warning} {line}\n" in planned.out
    assert 1 == planned.out.count("after the command")
    dry = project.onebox("run", "--dry", *words)
    assert f"for the box: onebox run --dry {line}\n" in dry.out

    document = json.loads(project.onebox("plan", "--json", *words).out)
    assert [f"{warning} --json {line}"] == document["warnings"]
    assert words[-1] in document["command"]


def test_run_warns_before_anything_is_created(project: Project) -> None:
    """The run goes on, because the flag may be one of the job's own."""
    project.write("show.py", "import sys\nprint(sys.argv[1:])\n")
    done = project.onebox("run", "python", "show.py", "--no-spot")

    assert (0, "['--no-spot']\n") == (done.code, done.out)
    warning = "! --no-spot comes after the command"
    assert warning in done.err
    assert done.err.index(warning) < done.err.index("provision")
    assert "onebox run --no-spot python show.py\n" in done.err


@pytest.mark.fast
@pytest.mark.parametrize(
    "words",
    [
        ["python", "job.py", "--epochs=3", "--vm"],
        ["python", "job.py", "--vm", "--keep=3"],
        ["--", "python", "job.py", "--vm=large"],
        ["python", "job.py", "--", "--vm=large"],
        ["--vm=large", "python", "job.py"],
    ],
)
def test_words_that_can_only_be_the_jobs_have_no_warning(
    project: Project, words: list[str]
) -> None:
    """After an explicit --, each word is meant for the job; other flags are its own."""
    project.write("job.py", "")
    document = json.loads(project.onebox("plan", "--json", *words).out)
    assert [] == document["warnings"]
    if "--" in words[:1]:
        assert "warning" not in project.inv("plan", *words).out


@pytest.mark.fast
def test_exec_explains_a_line_for_a_shell(project: Project) -> None:
    """One word with a pipe is no program; the hint has the line and the other flags."""
    done = project.onebox("exec", "--", "ls | head -2", "--name=b")

    assert 64 == done.code
    assert '"ls | head -2" is one word, but not the name of a program' in done.err
    assert "next: onebox exec --name=b -- bash -c 'ls | head -2'\n" in done.err
