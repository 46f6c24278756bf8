"""`inv exec`: a command of the user's beside the job."""

from __future__ import annotations

import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

from onebox.store.box_store import BoxStore
from tests.conftest import Project
from tests.system.lines import finished_stages, let_job_continue
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
    """A teardown is refused while it runs; if it is forced, the outcome is unknown."""
    project.inv("provision")
    (box,) = project.boxes()
    line = project.start("exec", "--command=echo ready; sleep 86396; echo")
    project.until("ready")
    refused = project.inv("teardown")
    assert 64 == refused.code
    name = f"\"inv exec '--command=echo ready; sleep 86396; echo'\" (process {line.pid}"
    assert f"onebox[64]: {name}, since " in refused.err
    assert f"still runs on census/main ({box}); the box stays" in refused.err
    assert 0 == project.inv("teardown", "--discard-outputs", "--yes").code

    assert 74 == line.wait(60)
    removed = f"onebox[74]: census/main ({box}) was removed by another onebox command"
    assert f"{removed}\n  next: inv status\n" in project.err


def test_a_run_keeps_the_box_while_a_command_runs_there(project: Project) -> None:
    """
    The run has its own code; a line names the command, the price and the deadline.

    The next run removes the box, which only that command has kept.
    """
    waits_for_go(project)
    run = project.start("run")
    project.until("working")
    (box,) = project.boxes()
    other = replace(project, home=project.home / "other")
    other.home.mkdir()
    command = "echo ready; until [ -e go2 ]; do sleep 0.05; done; echo mine; exit 6"
    line = other.start("exec", f"--command={command}")
    other.until("ready")
    let_job_continue(project)

    assert 0 == run.wait(60)
    kept = [text for text in project.err.splitlines() if text.startswith("box ")]
    assert 1 == len(kept)
    assert f"kept  {box}, no charge: " in kept[0]
    assert "powers itself off in 8 h" in project.err
    assert "30 min without job and client: inv teardown" in " ".join(
        project.err.split()
    )
    assert [box] == project.boxes()
    (project.home / "local/boxes" / box / "disk/home/work/go2").touch()
    assert 6 == line.wait(60)
    assert "mine" in other.out
    project.write("job.sh", "true")
    assert 0 == project.inv("run", "--yes").code
    assert [] == project.boxes()


def test_a_shell_does_not_keep_the_box_at_the_end_of_a_run(project: Project) -> None:
    """A shell that was left open would cost money until the deadline."""
    waits_for_go(project)
    run = project.start("run")
    project.until("working")
    with start_in_terminal(project, "ssh", columns=200) as child:
        child.sendline("echo in-$((6 * 7))")
        child.expect_exact("in-42")
        let_job_continue(project)
        assert 0 == run.wait(60)
        assert 74 == exit_code(child)
        assert "was removed by another onebox command" in (child.before or "")
    assert [] == project.boxes()


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


MADE = ("exec", "--command=mkdir -p results && date +%N >> results/answer")


def test_outputs_that_only_a_commands_settings_name_keep_the_box(
    project: Project,
) -> None:
    """
    A profile names other outputs. The teardown is without it, and fetches none of them.

    `inv fetch` without the profile fetches them, and the box can be removed then.
    """
    project.write(
        "onebox.toml",
        '[run]\ncommand = "true"\n[fetch]\noutputs = ["results/"]\n'
        '[profile.gpu.fetch]\noutputs = ["gpu/"]\n',
    )
    made = "mkdir gpu; echo precious > gpu/r"
    assert 0 == project.inv("provision", "--profile=gpu").code
    assert 0 == project.inv("exec", "--profile=gpu", "--", "sh", "-c", made).code

    held = project.inv("teardown")
    done = project.inv("fetch", "teardown")

    assert 73 == held.code, held.err
    assert "gpu/r" in held.err
    assert 0 == done.code, done.err
    assert "precious\n" == project.read("gpu/r")


def test_teardown_of_a_box_that_is_off_fetches_what_a_command_left(
    project: Project,
) -> None:
    """No job has run there, so no record tells of outputs."""
    assert 0 == project.inv("push").code
    assert 0 == project.inv(*MADE).code
    project.cut_power()
    done = project.inv("teardown")

    assert 0 == done.code, done.err
    assert "1 file" in done.err
    assert project.read("results/answer")
    assert [] == project.boxes()


def test_teardown_of_a_box_that_is_off_fetches_what_came_after_the_fetch(
    project: Project,
) -> None:
    """A command may run after the outputs of the job were fetched."""
    assert 0 == project.inv("run", "--keep").code
    assert 0 == project.inv(*MADE).code
    project.cut_power()
    done = project.inv("teardown")

    assert 0 == done.code, done.err
    assert project.read("results/answer")


def test_teardown_of_a_box_that_is_off_starts_no_box_on_which_nothing_ran(
    project: Project,
) -> None:
    """A start costs money. After a fetch, nothing has run either."""
    assert 0 == project.inv("push").code
    project.cut_power()
    unused = project.inv("teardown")
    assert 0 == project.inv("push").code
    assert 0 == project.inv(*MADE).code
    assert 0 == project.inv("fetch").code
    project.cut_power()
    fetched = project.inv("teardown")

    for done in (unused, fetched):
        assert 0 == done.code, done.err
        assert ["teardown"] == finished_stages(done.err)
    assert [] == project.boxes()


def test_teardown_asks_before_a_box_that_is_off_is_discarded(project: Project) -> None:
    """Whether a command has left outputs is unknown without a start."""
    assert 0 == project.inv("push").code
    assert 0 == project.inv(*MADE).code
    project.cut_power()
    done = project.inv("teardown", "--discard-outputs")

    assert 64 == done.code
    assert "not confirmed" in done.err
    assert 1 == len(project.boxes())


def test_the_users_own_ssh_counts_as_a_command(project: Project) -> None:
    """After `inv ssh --install` any program may have left outputs on the box."""
    assert 0 == project.inv("ssh", "--install").code
    assert 0 == project.inv("push").code
    (box,) = project.boxes()
    made = project.home / "local/boxes" / box / "disk/home/work/results/answer"
    made.parent.mkdir(exist_ok=True)
    made.write_text("42\n")
    project.cut_power()
    done = project.inv("teardown")

    assert 0 == done.code, done.err
    assert "42\n" == project.read("results/answer")


def test_a_command_on_a_removed_box_does_not_keep_the_next_box(
    project: Project,
) -> None:
    """Its client may hang for ever, and would cost money until the deadline."""
    project.inv("provision")
    line = project.start("exec", "--command=echo ready; sleep 86397; echo")
    project.until("ready")
    line.send_signal(signal.SIGSTOP)
    assert 0 == project.inv("teardown", "--discard-outputs", "--yes").code
    project.write("job.sh", "mkdir -p results; echo 1 > results/end")
    done = project.inv("run")
    left = project.boxes()
    line.send_signal(signal.SIGCONT)

    assert 0 == done.code, done.err
    assert [] == left
    assert 74 == line.wait(60)


def test_a_command_that_waits_for_a_removal_can_be_interrupted(
    project: Project,
) -> None:
    """A cloud may need minutes to delete a box. One line says what it waits for."""
    project.inv("provision")
    (box,) = project.boxes()
    (state,) = project.home.glob("state/projects/*/main")
    store = BoxStore(state)
    with store.sessions.none_begins(box), store.intent("delete", box=box):
        line = project.start("exec", "--", "true")
        end = time.monotonic() + 60
        while "waits for" not in project.err:
            assert time.monotonic() < end, "it says nothing"
            time.sleep(0.05)
        line.send_signal(signal.SIGINT)
        assert 130 == line.wait(60)

    assert 1 == project.err.count(f"waits for the removal of {box}\n")
    assert 0 == project.inv("exec", "--", "true").code


# If there is a file "wait", a function waits at its end.
WAITING = """\
import pathlib, time
from onebox import *
from onebox.{package} import {module}

first = {module}.{function}

def wait(*args, **options):
    result = first(*args, **options)
    pathlib.Path("wait").unlink()
    pathlib.Path("waits").touch()
    while not pathlib.Path("end").exists():
        time.sleep(0.05)
    return result

if pathlib.Path("wait").exists():
    {module}.{function} = wait
"""


def start_waiting(
    project: Project, stage: str, **where: str
) -> subprocess.Popen[bytes]:
    """Start a stage, and wait until it waits at the end of a function."""
    project.write("tasks.py", WAITING.format(**where))
    project.write("wait", "")
    line = project.start(stage)
    end = time.monotonic() + 60
    while not (project.root / "waits").exists():
        assert time.monotonic() < end, project.err
        time.sleep(0.05)
    return line


def test_a_command_that_ends_during_a_fetch_keeps_the_box(project: Project) -> None:
    """It has written after the outputs were listed; the box is off later."""
    assert 0 == project.inv("push").code
    write = "echo ready; until [ -e go ]; do sleep 0.05; done; "
    write += "mkdir -p results; echo 42 > results/late"
    other = replace(project, home=project.home / "other")
    other.home.mkdir()
    command = other.start("exec", f"--command={write}")
    other.until("ready")
    fetch = start_waiting(
        project, "fetch", package="transfer", module="fetch_outputs", function="fetch"
    )
    let_job_continue(project)
    assert 0 == command.wait(60)
    project.write("end", "")
    assert 0 == fetch.wait(60), project.err
    project.cut_power()
    done = project.inv("teardown")

    assert 0 == done.code, done.err
    assert "42\n" == project.read("results/late")
    assert [] == project.boxes()


def test_a_command_that_ends_after_the_check_of_a_teardown_keeps_the_box(
    project: Project,
) -> None:
    """It has written after the outputs were compared."""
    assert 0 == project.inv("push").code
    other = replace(project, home=project.home / "other")
    other.home.mkdir()
    teardown = start_waiting(
        project,
        "teardown",
        package="stages",
        module="held_outputs",
        function="check_box",
    )
    command = other.start(*MADE)
    assert 0 == command.wait(60), other.err
    project.write("end", "")

    assert 73 == teardown.wait(60), project.err
    assert "results/answer" in project.err
    assert 1 == len(project.boxes())
