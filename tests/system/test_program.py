"""The program `onebox`: the tasks without `inv`, and without tasks.py."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import onebox
from tests.conftest import Project
from tests.system.test_terminal import exit_code

SHOW = "import sys\nprint(sys.argv[1:])\n"
HERE = Path(sys.executable).parent


@pytest.mark.fast
def test_version_is_that_of_the_package(project: Project) -> None:
    """`onebox --version` and `python -m onebox --version` print it."""
    line = f"onebox {onebox.__version__}\n"

    assert line == project.onebox("--version").out
    program = shutil.which("onebox", path=str(HERE))
    if program is None:
        pytest.skip("the program onebox is not installed beside this Python")
    done = subprocess.run([program, "-V"], capture_output=True, text=True, check=True)
    assert line == done.stdout


def test_a_folder_without_tasks_file_gets_a_project_and_runs_a_job(
    project: Project,
) -> None:
    """`onebox init` and `onebox run` need no tasks.py."""
    (project.root / "tasks.py").unlink()
    (project.root / "onebox.toml").unlink()
    lost = project.onebox("run")
    assert 78 == lost.code
    assert f"there is no onebox.toml in {project.root}" in lost.err
    assert "onebox init" in lost.err

    assert 0 == project.onebox("init").code
    below = project.root / "below"
    below.mkdir()
    done = project.onebox("run", "sh", "job.sh", cwd=below)
    assert (0, "working\n") == (done.code, done.out), done.err
    assert "42\n" == project.read("results/answer.txt")
    assert [] == project.boxes()


def test_words_of_a_command_reach_the_job_exactly(project: Project) -> None:
    """The command begins at the first word that is no flag and no task."""
    project.write("show.py", SHOW)
    words = ["--epochs", "3", "a  b", "it's", "", "--", "$HOME", "--keep", "*"]
    direct = project.onebox("run", "--vm=large", "python3", "show.py", *words)
    assert f"{words}\n" == direct.out, direct.err
    dashed = project.onebox("push", "run", "--keep", "--", "python3", "show.py", *words)
    assert f"{words}\n" == dashed.out, dashed.err
    on_box = project.onebox("ssh", "printf", "<%s>", "a  b", "--keep")
    assert "<a  b><--keep>" == on_box.out
    assert 0 == project.onebox("teardown").code
    assert [] == project.boxes()


@pytest.mark.fast
def test_a_task_is_not_taken_as_a_command(project: Project) -> None:
    """`onebox run fetch` is two tasks; after --, it is a command."""
    chain = project.onebox("run", "fetch", "--dry")
    assert "fetch" in chain.out
    assert "sh job.sh" not in chain.err
    wrong = project.onebox("push", "fecth")
    assert 64 == wrong.code
    assert "did you mean: onebox push fetch\n" in wrong.err


def test_tasks_of_the_project_are_tasks_of_the_program(project: Project) -> None:
    """Its own stages run; onebox's tasks are there under the names left free."""
    project.write(
        "tasks.py",
        "from invoke import task\nimport onebox\n"
        "from onebox import push\n"
        "@onebox.stage(push)\n"
        "def train(c, num='1'):\n    onebox.run(c, command=f'echo trained {num}')\n"
        "@task\ndef status(c):\n    print('my status')\n",
    )
    (project.root / "below").mkdir()
    below = project.root / "below"
    done = project.onebox("train", "--num=7", cwd=below)
    assert (0, "trained 7\n") == (done.code, done.out), done.err
    assert "my status\n" == project.onebox("status").out
    listed = project.onebox("--list").out
    assert "train" in listed and "teardown" in listed


@pytest.mark.fast
@pytest.mark.parametrize(
    "tasks",
    [
        "from invoke import task\n@task\ndef build(c):\n    pass\n",
        "import nothing_of_this_name\n",
    ],
)
def test_tasks_file_without_onebox_is_left_alone(project: Project, tasks: str) -> None:
    """The program has its own tasks; the file is neither needed nor imported."""
    project.write("tasks.py", tasks)
    listed = project.onebox("--list")

    assert 0 == listed.code
    assert "  run " in listed.out
    assert "build" not in listed.out


@pytest.mark.fast
def test_tasks_file_that_cannot_be_imported_is_named(project: Project) -> None:
    """The message has the file, the cause, and the Python to install for."""
    project.write("tasks.py", "from onebox import *\nimport nothing_of_this_name\n")
    done = project.onebox("status")

    assert 78 == done.code
    assert "tasks.py" in done.err and "nothing_of_this_name" in done.err
    assert sys.executable in done.err
    assert "Traceback" not in done.err


@pytest.mark.fast
def test_messages_and_help_name_the_program(project: Project) -> None:
    """No text says `inv` when the user typed `onebox`."""
    for words in (
        ["--help", "run"],
        ["--help", "cleanup"],
        ["--list"],
        [],
        ["logs"],
        ["run", "--vm"],
        ["plan"],
        ["init"],
        ["teardown"],
        ["cleanup", "--print-cron"],
    ):
        done = project.onebox(*words)
        assert "inv " not in done.out + done.err, words
    assert "onebox cleanup" in project.onebox("--help", "cleanup").out
    assert "onebox init --force" in project.onebox("init").err


@pytest.mark.fast
def test_help_of_inv_names_the_namespace(project: Project) -> None:
    """`inv --help box.run` shows lines that can be typed."""
    project.write(
        "tasks.py",
        "from invoke import Collection\nimport onebox\n"
        "ns = Collection(box=onebox.ns)\n",
    )
    shown = project.inv("--help", "box.run").out
    assert "`inv box.run -- COMMAND`" in shown
    assert "`inv box.logs`" in shown
    assert "`inv box.teardown`" in " ".join(project.inv("--list").out.split())
    # The program has the tasks without a namespace, too.
    assert "`onebox run -- COMMAND`" in project.onebox("--help", "run").out


@pytest.mark.fast
def test_help_puts_the_flags_of_all_stages_last(project: Project) -> None:
    """A task's own flags come first, and the rule for its command is stated."""
    shown = project.onebox("--help", "run").out
    assert shown.index("--detach") < shown.index("Flags of every stage")
    assert shown.index("Flags of every stage") < shown.index("--vm=STRING")
    assert "The command begins at the first word" in shown
    assert "The command begins" not in project.onebox("--help", "push").out
    wrong = project.onebox("--help", "rnu")
    assert 64 == wrong.code
    assert "did you mean: onebox --help run\n" in wrong.err


@pytest.mark.fast
def test_cron_line_has_the_program_and_the_variables(project: Project) -> None:
    """cron has an environment of its own; values are quoted."""
    state = str(project.home / "a state")
    line = project.onebox("cleanup", "--print-cron", env={"ONEBOX_STATE": state}).out

    assert f"ONEBOX_STATE='{state}' " in line
    assert "ONEBOX_IDENTITY=" in line
    assert "onebox cleanup --yes" in line
    bare = {n: v for n, v in os.environ.items() if n in ("PATH", "HOME")}
    command = line.partition("* * * * ")[2].replace(r"\%", "%").strip()
    done = subprocess.run(["sh", "-c", command], env=bare, check=False)
    assert 0 == done.returncode
    assert "no boxes" in (Path(state) / "cleanup.log").read_text()


@pytest.mark.fast
def test_tasks_about_a_box_say_that_there_is_no_project(
    project: Project, tmp_path: Path
) -> None:
    """In another folder, the message names what is missing and how to begin."""
    empty = tmp_path / "empty"
    empty.mkdir()
    for task in ("status", "logs"):
        done = project.onebox(task, cwd=empty)
        assert f"onebox: there is no onebox.toml in {empty} or above\n" in done.err
        assert "next: onebox init" in done.err
    assert "there is no onebox.toml" not in project.onebox("status").err


@pytest.mark.fast
def test_listing_loads_no_library_that_inv_does_not_load(project: Project) -> None:
    """`onebox --list` imports neither rich, toml, an SDK nor the core of onebox."""
    code = (
        "import sys; sys.argv = ['onebox', '--list']\n"
        "from onebox.program import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'rich', 'toml', 'boto3', 'digitalocean', 'asyncssh', 'google',"
        " 'onebox.context', 'onebox.settings', 'onebox.completion'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=project.root,
        env=project.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (0, "") == (done.returncode, done.stderr)


def test_the_program_works_in_a_terminal(project: Project) -> None:
    """Ctrl-C detaches, and the hints name the program."""
    import pexpect

    project.write("job.sh", "echo begun; sleep 30\n")
    child = pexpect.spawn(
        sys.executable,
        ["-m", "onebox", "run", "sh", "job.sh"],
        cwd=str(project.root),
        env={**project.environ, "TERM": "xterm-256color"},
        encoding="utf-8",
        timeout=60,
    )
    child.expect_exact("begun")
    child.expect_exact("Ctrl-C detaches")
    child.sendintr()
    child.expect_exact("onebox logs")
    assert 130 == exit_code(child)
    assert 0 == project.onebox("cancel").code
    assert 0 == project.onebox("teardown", "--discard-outputs", "--yes").code
