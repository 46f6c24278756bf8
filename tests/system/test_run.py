"""`inv run`: outputs, exit codes, output, and when a job is up to date."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess

import pytest

from tests.conftest import JOB, Project
from tests.system.lines import finished_stages, let_job_continue


@pytest.mark.fast
def test_run_leaves_outputs_and_no_box(project: Project) -> None:
    """
    `inv run` goes through every stage, fetches the outputs and deletes the
    box.
    """
    done = project.inv("run")

    assert (0, "working\n") == (done.code, done.out)
    assert [
        "image",
        "provision",
        "push",
        "run",
        "fetch",
        "teardown",
    ] == finished_stages(done.err)
    assert "42\n" == project.read("results/answer.txt")
    assert "\x1b" not in done.err
    assert [] == project.boxes()
    assert [] == project.processes()


def test_run_works_without_onebox_toml(project: Project) -> None:
    """`inv run -- command` works on local without a file."""
    (project.root / "onebox.toml").unlink()
    done = project.inv("run", "--", "sh", "job.sh")

    assert (0, "working\n") == (done.code, done.out)


@pytest.mark.fast
def test_run_without_a_command_is_refused_before_a_box_is_created(
    project: Project,
) -> None:
    """A run needs a command; the error is one line."""
    (project.root / "onebox.toml").unlink()
    done = project.inv("run")

    assert 78 == done.code
    assert "onebox[78]: there is nothing to run" in done.err
    assert "provision" not in finished_stages(done.err)
    assert [] == project.boxes()


@pytest.mark.parametrize("code", [1, 3, 64, 73, 126, 255])
def test_exit_code_of_the_job_is_invs(project: Project, code: int) -> None:
    """inv exits with the job's exit code, after the outputs were fetched."""
    project.write("job.sh", f"mkdir -p results; echo x > results/x; exit {code}")
    done = project.inv("run")

    assert code == done.code
    assert f"exit {code}" in done.err
    assert "onebox:" not in done.err
    assert "x\n" == project.read("results/x")
    assert [] == project.boxes()


def test_job_killed_by_a_signal_exits_with_128_and_its_number(project: Project) -> None:
    """The signal is named."""
    project.write("job.sh", "kill -SEGV $$")
    done = project.inv("run")

    assert 128 + signal.SIGSEGV == done.code
    assert "SIGSEGV" in done.err


def test_words_of_the_command_are_passed_unchanged(project: Project) -> None:
    """Every word behind `--` reaches the command as it was typed."""
    words = ["a  b", "", "it's", 'say "hi"', "$HOME", "*", "new\nline", "ü"]
    show = "import json,sys; print(json.dumps(sys.argv[1:]))"
    done = project.inv("run", "--", "python3", "-c", show, *words)

    assert words == json.loads(done.out)


def test_stdout_has_only_the_jobs_output(project: Project) -> None:
    """All messages of onebox are on stderr."""
    project.write("job.sh", r"printf 'a\000\377\033[1mb\r\nno newline'; echo e >&2")
    with subprocess.Popen(
        project.argv("run"),
        cwd=project.root,
        env=project.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as line:
        assert line.stdout is not None
        assert b"a\0\xff\x1b[1mb\r\nno newlinee\n" == line.stdout.read()


def test_receipt_is_beside_the_outputs_and_below_onebox(project: Project) -> None:
    """The receipt beside the outputs is equal to the one in `.onebox`."""
    project.inv("run")
    beside = json.loads(project.read("results/onebox-receipt.json"))
    (kept,) = project.root.glob(".onebox/jobs/*/receipt.json")

    assert beside == json.loads(kept.read_text())
    assert (0, "exit", "sh job.sh") == (
        beside["exit"],
        beside["cause"],
        beside["command"],
    )
    assert "working\n" == (kept.parent / "log").read_text()


def test_secret_is_in_the_jobs_environment_and_in_no_file(project: Project) -> None:
    """No file of onebox contains the value."""
    project.write(
        "onebox.toml",
        '[run]\ncommand = "sh job.sh"\nsecrets = ["TOKEN"]\n',
    )
    project.write("job.sh", "printf %s $TOKEN | sha256sum | cut -c-8")
    done = project.inv("run", "--keep", env={"TOKEN": "canary-8271"})

    digest = hashlib.sha256(b"canary-8271").hexdigest()[:8]
    assert f"{digest}\n" == done.out
    everywhere = [project.home, project.root]
    found = [
        path
        for top in everywhere
        for path in top.rglob("*")
        if path.is_file() and b"canary-8271" in path.read_bytes()
    ]
    assert [] == found


def test_missing_secret_is_named_before_a_box_is_created(project: Project) -> None:
    """A secret must be in the environment."""
    project.write("onebox.toml", '[run]\ncommand = "sh job.sh"\nsecrets = ["TOKEN"]\n')
    done = project.inv("run")

    assert 64 == done.code
    assert "TOKEN is not in the environment" in done.err
    assert "provision" not in finished_stages(done.err)


def test_unchanged_job_is_skipped(project: Project) -> None:
    """
    With when = "changed", the same command, code and outputs do not run
    again.
    """
    project.write("onebox.toml", TOML_CHANGED)
    first = project.inv("run")
    second = project.inv("run")
    assert (0, 0) == (first.code, second.code)
    assert ["run"] == finished_stages(second.err)
    assert "" == second.out

    project.write("results/answer.txt", "changed by hand\n")
    third = project.inv("run")
    assert "working\n" == third.out
    assert "42\n" == project.read("results/answer.txt")
    assert "changed by hand\n" == project.read("results/answer.txt~")


def test_backup_of_an_output_is_no_change_of_the_code(project: Project) -> None:
    """A fetch that keeps the user's changed output leaves the job up to date."""
    outputs = 'outputs = ["answer.txt"]'
    project.write(
        "onebox.toml", TOML_CHANGED.replace('outputs = ["results/"]', outputs)
    )
    project.write("job.sh", "echo working; echo 42 > answer.txt\n")
    assert 0 == project.inv("run").code
    project.write("answer.txt", "changed by hand\n")
    assert "working\n" == project.inv("run").out
    assert "changed by hand\n" == project.read("answer.txt~")

    assert ["run"] == finished_stages(project.inv("run").err)
    plan = project.inv("plan").err
    assert "answer.txt~" not in plan.partition("not pushed")[0]


def test_edit_during_a_run_makes_the_job_outdated(project: Project) -> None:
    """The edited file was not part of the run."""
    project.write("onebox.toml", TOML_CHANGED)
    project.write("job.sh", JOB + "while [ ! -e go ]; do sleep 0.1; done\n")
    line = project.start("run")
    project.until("working\n")
    project.write("job.sh", JOB.replace("42", "43"))
    let_job_continue(project)
    assert 0 == line.wait(60)
    assert "42\n" == project.read("results/answer.txt")

    assert "working\n" == project.inv("run").out
    assert "43\n" == project.read("results/answer.txt")
    assert "" == project.inv("run").out


def test_failed_job_is_not_up_to_date(project: Project) -> None:
    """A job that failed runs again although nothing changed."""
    project.write("onebox.toml", TOML_CHANGED)
    project.write("job.sh", "exit 1")
    assert 1 == project.inv("run").code
    assert 1 == project.inv("run").code


TOML_CHANGED = """\
[run]
command = "sh job.sh"
when = "changed"

[fetch]
outputs = ["results/"]
"""
