"""`inv exec`: a command of the user's beside the job."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

from tests.conftest import Project
from tests.system.lines import let_job_continue
from tests.system.test_terminal import exit_code, start_in_terminal

WAITS = """\
echo working
until [ -e go ]; do sleep 0.05; done
mkdir -p results; echo end | tee results/end
"""
SECRET = "s3cret-value-of-a-test"


def waits_for_go(project: Project) -> None:
    """Let the project's job wait until `let_job_continue`."""
    project.write("job.sh", WAITS)


def is_running(command: str) -> bool:
    """Return whether a process with this command line runs on this machine."""
    wanted = command.replace(" ", "\0").encode() + b"\0"
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes() == wanted:
                return True
        except OSError:
            continue
    return False


def wait_for(command: str, *, runs: bool) -> None:
    """Wait until a process with this command line runs, or does not run."""
    end = time.monotonic() + 60
    while is_running(command) is not runs:
        assert time.monotonic() < end, f"{command}: still {not runs}"
        time.sleep(0.02)


def test_a_command_runs_beside_the_job_in_its_folder_and_environment(
    project: Project,
) -> None:
    """Another `inv run` holds the lock meanwhile. Its streams and code come back."""
    waits_for_go(project)
    project.write(
        "onebox.toml",
        '[run]\ncommand = "sh job.sh"\nenv = { LEVEL = "2" }\nsecrets = ["TOKEN"]\n'
        '[fetch]\noutputs = ["results/"]\n',
    )
    project.environ["TOKEN"] = SECRET
    line = project.start("run")
    project.until("working")
    shown = 'ls; echo "$LEVEL $TOKEN ${ONEBOX_JOB-no job}"; echo problem >&2; exit 7'
    done = project.inv("exec", "--", "sh", "-c", shown)
    by_shell = project.inv("exec", "--command=cat job.sh | head -n 1 && exit 9")
    let_job_continue(project)

    assert (7, "problem\n") == (done.code, done.err)
    assert ["job.sh", f"2 {SECRET} no job"] == [
        text for text in done.out.splitlines() if text.startswith(("job.sh", "2"))
    ]
    assert (9, "echo working\n", "") == (by_shell.code, by_shell.out, by_shell.err)
    assert 0 == line.wait()
    assert [] == project.boxes()


def test_a_command_uses_the_jobs_virtual_environment(project: Project) -> None:
    """A program of ~/.venv is found as in the job; each word arrives as typed."""
    project.inv("provision")
    (box,) = project.boxes()
    tool = project.home / "local/boxes" / box / "disk/home/.venv/bin/tool"
    tool.parent.mkdir(parents=True)
    tool.write_text('#!/bin/sh\nprintf "%s\\n" "$VIRTUAL_ENV" "$@"\n')
    tool.chmod(0o755)

    done = project.inv("exec", "--", "tool", "two words", "*")

    assert 0 == done.code
    assert [str(tool.parent.parent), "two words", "*"] == done.out.splitlines()


def test_the_exit_code_of_a_killed_command_names_the_signal(project: Project) -> None:
    """It is 128 + the signal, and 127 if there is no such program."""
    project.inv("provision")

    assert 137 == project.inv("exec", "--command=kill -9 $$").code
    missing = project.inv("exec", "--", "no-such-program")
    assert (127, "") == (missing.code, missing.out)
    assert "no-such-program: command not found" in missing.err


def test_a_command_reads_the_input_of_inv(project: Project) -> None:
    """A pipe can feed it."""
    project.inv("provision")
    done = subprocess.run(
        project.argv("exec", "--", "wc", "-c"),
        cwd=project.root,
        env=project.environ,
        input=b"x" * 100_000,
        capture_output=True,
        check=False,
    )
    assert (0, b"100000") == (done.returncode, done.stdout.strip())


def test_ctrl_c_ends_the_command_and_not_the_job(project: Project) -> None:
    """In a terminal the command has a terminal too, and gets the Ctrl-C itself."""
    waits_for_go(project)
    line = project.start("run")
    project.until("working")
    with start_in_terminal(
        project, "exec", "--command=test -t 1 && echo ready; sleep 86391"
    ) as child:
        child.expect_exact("ready")
        child.sendintr()
        assert 130 == exit_code(child)
    wait_for("sleep 86391", runs=False)
    let_job_continue(project)

    assert 0 == line.wait()
    assert "end" in project.out


def test_a_signal_ends_the_command_on_the_box_without_a_terminal(
    project: Project,
) -> None:
    """The connection closes, so nothing is left running on the box."""
    project.inv("provision")
    line = project.start("exec", "--command=echo ready; sleep 86392; echo")
    project.until("ready")
    wait_for("sleep 86392", runs=True)
    line.send_signal(signal.SIGINT)

    assert 130 == line.wait()
    wait_for("sleep 86392", runs=False)


def test_a_closed_terminal_ends_the_command_on_the_box(project: Project) -> None:
    """A killed client does the same."""
    project.inv("provision")
    with start_in_terminal(
        project, "exec", "--command=echo ready; sleep 86393; echo"
    ) as child:
        child.expect_exact("ready")
        wait_for("sleep 86393", runs=True)
    wait_for("sleep 86393", runs=False)


def test_a_command_needs_a_box_that_is_up(project: Project) -> None:
    """No box is created for it, and the error names the next command."""
    done = project.inv("exec", "--", "ls")

    assert 64 == done.code
    assert "there is no box census/main\n  next: inv provision creates" in done.err
    assert "inv exec -- COMMAND" in project.inv("exec").err
    assert [] == project.boxes()


def test_secrets_of_a_command_are_in_no_file_and_no_command_line(
    project: Project,
) -> None:
    """They wait in memory until the command reads them."""
    project.write("onebox.toml", '[run]\ncommand = "true"\nsecrets = ["TOKEN"]\n')
    project.environ["TOKEN"] = SECRET
    project.inv("provision")
    line = project.start("exec", "--command=echo ready; sleep 86394")
    project.until("ready")
    searched = [
        path
        for folder in (project.home, project.root)
        for path in folder.rglob("*")
        if path.is_file()
    ]
    searched += Path("/proc").glob("[0-9]*/cmdline")
    held = []
    for path in searched:
        try:
            if SECRET.encode() in path.read_bytes():
                held.append(path)
        except OSError:
            continue
    line.send_signal(signal.SIGTERM)

    assert [] == held
    assert 143 == line.wait()


def test_a_command_renews_the_lease_of_the_box(project: Project) -> None:
    """An idle box powers itself off; a box with a command is not idle."""
    project.inv("provision")
    (box,) = project.boxes()
    (lease,) = (project.home / "local/boxes" / box).rglob("lease")
    line = project.start("exec", "--command=echo ready; sleep 86395; echo")
    project.until("ready")
    began, end = lease.stat().st_mtime_ns, time.monotonic() + 100
    while lease.stat().st_mtime_ns == began:
        assert time.monotonic() < end, "the lease is not renewed"
        time.sleep(0.05)
    line.send_signal(signal.SIGTERM)
    assert 143 == line.wait()


def test_a_command_whose_box_is_removed_says_so(project: Project) -> None:
    """
    The exit code is 74, or that of ssh while the removal is still under way. A line of
    onebox follows in both cases, because ssh prints nothing.
    """
    project.inv("provision")
    line = project.start("exec", "--command=echo ready; sleep 86396; echo")
    project.until("ready")
    assert 0 == project.inv("teardown").code

    assert line.wait(60) in (74, 255)
    assert "onebox: " in project.err
    assert "next: inv status" in project.err


def test_a_missing_secret_is_refused(project: Project) -> None:
    """The command would run without it, as the job never does."""
    project.write("onebox.toml", '[run]\ncommand = "true"\nsecrets = ["TOKEN"]\n')
    done = project.inv("exec", "--", "true")

    assert 64 == done.code
    assert "[run] secrets: TOKEN is not in the environment" in done.err
    assert "next: export TOKEN=…" in done.err


def test_outputs_of_a_command_keep_a_box_without_a_job(project: Project) -> None:
    """A teardown does not delete them, and a fetch brings them here."""
    assert 0 == project.inv("push").code
    made = "mkdir -p results && echo 42 > results/answer"
    assert 0 == project.inv("exec", "--", "sh", "-c", made).code

    held = project.inv("teardown")
    done = project.inv("fetch", "teardown")

    assert 73 == held.code, held.err
    assert "results/answer" in held.err
    assert 0 == done.code, done.err
    assert "42\n" == project.read("results/answer")
    assert [] == project.boxes()
