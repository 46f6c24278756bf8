"""Odd places, streams and files end a command with a clear line, not a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Done, Project

FULL = Path("/dev/full")


def shell(project: Project, line: str) -> Done:
    """Run a line of the shell in the project's folder; `onebox` is the program."""
    done = subprocess.run(
        ["bash", "-c", f'onebox() {{ "{sys.executable}" -m onebox "$@"; }}; {line}'],
        cwd=project.root,
        env=project.environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=300,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def check(done: Done, code: int, text: str) -> None:
    """Check the exit code, and that an error line with *text* is the only message."""
    assert "Traceback" not in done.err
    assert text in done.err
    assert f"onebox[{code}]: " in done.err
    assert code == done.code


@pytest.mark.skipif(not FULL.exists(), reason="/dev/full is missing")
@pytest.mark.parametrize(
    "words", ["--list", "--version", "--help run", "history", "plan", "status --json"]
)
def test_requested_output_that_cannot_be_written_is_an_error(
    project: Project, words: str
) -> None:
    """Exit code 0 would say that the file after `>` is complete."""
    done = shell(project, f"onebox {words} > /dev/full")
    check(done, 74, "stdout cannot be written: No space left on device")


@pytest.mark.skipif(not FULL.exists(), reason="/dev/full is missing")
def test_the_output_of_a_job_that_cannot_be_written_is_an_error(
    project: Project,
) -> None:
    """The job itself ends, its outputs come back, and no box is left."""
    done = shell(project, "onebox run > /dev/full")
    check(done, 74, "onebox logs prints a job's output again")
    assert "verified" in done.err
    assert [] == project.boxes()


@pytest.mark.parametrize("words", ["--list", "--help", "history", "init --example"])
def test_a_reader_that_ends_early_is_no_error(project: Project, words: str) -> None:
    """As in `onebox history | head -1`."""
    done = shell(project, f"onebox {words} | true")
    assert "" == done.err


def test_a_home_that_is_a_file_is_named(project: Project) -> None:
    """Invoke reads its configuration there first."""
    done = project.onebox("plan", env={"HOME": str(project.root / "job.sh")})
    check(done, 78, "job.sh/.invoke.yaml cannot be read: Not a directory")


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("invoke.yaml", "a: [", "while parsing a flow node"),
        ("tasks.py", "import onebox; def (", "tasks.py:1: SyntaxError: invalid"),
        ("tasks.py", "import onebox\nprint(q)", "tasks.py:2: NameError: name 'q' is"),
        ("tasks.py", "import onebox\n\nint('a\\nb')", "tasks.py:3: ValueError: inv"),
        ("tasks.py", "import onebox\nimport nothing_here", "tasks.py:2: No module"),
        ("more.py", "import json\njson.loads('[')", "more.py:2: JSONDecodeError: "),
        ("more.py", "\nif", "more.py:2: SyntaxError: invalid syntax"),
    ],
)
def test_a_damaged_python_or_yaml_file_is_named(
    project: Project, name: str, text: str, problem: str
) -> None:
    """The line names file and line; `onebox --debug` prints the traceback."""
    project.write("tasks.py", "import onebox, more\n")
    project.write(name, text)
    done = project.onebox("plan")
    check(done, 78, problem)
    assert 2 == done.err.count("\n") or name == "invoke.yaml"


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("from onebox import nothing", "correct the import; onebox --debug --list"),
        ("import onebox.nothing", "correct the import; onebox --debug --list"),
        ("import onebox\nfrom json import nothing", "correct the import; onebox"),
        ("import onebox\nimport nothing_here", "install what is missing for /"),
    ],
)
def test_a_wrong_import_is_not_called_a_missing_package(
    project: Project, text: str, advice: str
) -> None:
    """No installation adds a name that a package does not have."""
    project.write("tasks.py", text)
    check(project.onebox("plan"), 78, f"\n  next: {advice}")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x = 1\nif", "; its line 2 has a SyntaxError: invalid syntax\n  next: "),
        ("x = 1\n", "so it is not read\n  next: onebox --list\n"),
    ],
)
def test_tasks_that_are_not_read_are_named_beside_an_unknown_task(
    project: Project, text: str, reason: str
) -> None:
    """A tasks.py that does not name onebox is no error as long as none is typed."""
    project.write("tasks.py", text)

    check(project.onebox("foo"), 64, reason)
    assert 'there is no task "foo"\n  tasks.py does not' in project.onebox("foo").err
    assert "tasks.py" not in project.onebox("status").err
    project.write("tasks.py", "import onebox\n")
    assert "tasks.py" not in project.onebox("foo").err


def test_a_configuration_of_an_unknown_type_is_named(project: Project) -> None:
    """As in `onebox -f /path/without/suffix plan`."""
    check(project.onebox("-f", "/nonexistent", "plan"), 78, "'/nonexistent'")


def test_a_flag_of_the_program_with_a_wrong_number(project: Project) -> None:
    """As in `onebox --command-timeout=x plan`."""
    check(project.onebox("-T", "x", "plan"), 64, "-T: expected a whole number")


def test_a_removed_working_directory_is_an_error(project: Project) -> None:
    """As in a shell whose folder another shell has removed."""
    done = shell(project, "mkdir gone; cd gone; rmdir ../gone; onebox plan")
    check(done, 66, "the working directory no longer exists")


def test_a_path_that_is_not_utf8_is_a_project(project: Project) -> None:
    """File names are bytes; the folder is recorded when a box is created."""
    folder = os.fsencode(project.root.parent) + b"/b\xff"
    os.rename(project.root, folder)  # noqa: PTH104 - the name is no text
    project.root = Path(os.fsdecode(folder))
    done = project.onebox("run")
    assert 0 == done.code, done.err
    assert [] == project.boxes()


def test_no_box_is_created_if_the_log_of_its_job_cannot_be_kept(
    project: Project,
) -> None:
    """Else the job would start, and the box would stay, without a log here."""
    project.write(".onebox", "a file\n")
    done = project.onebox("run")
    check(done, 78, ".onebox is not a folder")
    assert [] == project.boxes()
    assert 78 == project.onebox("plan").code


def test_an_unexpected_exception_becomes_one_line(project: Project) -> None:
    """The line names the exception and the place; `--debug` prints the traceback."""
    project.write(
        "tasks.py",
        "from onebox import *\n"
        "import onebox.boxes.finder as finder\n"
        "def broken(self): raise KeyError('surprise')\n"
        "finder.BoxFinder.find_current = broken\n",
    )
    for done in (project.onebox("teardown"), project.inv("teardown")):
        check(done, 70, "internal error: KeyError: 'surprise' (tasks.py:3)")
