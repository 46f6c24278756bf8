"""Ctrl-C during the start of a command line ends it with 130, without a traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Project

# Sends SIGINT to its own process when Python begins to import the module INTERRUPT_AT.
HOOK = """\
import os, signal, sys

def hook(event, args):
    if event == "import" and args[0] == os.environ["INTERRUPT_AT"]:
        os.kill(os.getpid(), signal.SIGINT)

sys.addaudithook(hook)
"""
# In the order in which a line imports them.
STARTING = (
    "onebox.errors",
    "onebox.tasks",
    "onebox.command_line",
    "onebox.settings.schema",
    "rich.console",
    "toml",
    "onebox.stages.provision",
)
RUNNING = ("onebox.providers.local.creation",)
OWN = """\
from invoke import task
from onebox import *

@task(default=True)
def mine(c):
    try:
        import colorsys
    except KeyboardInterrupt:
        print("mine stopped")
        raise
@task
def late(c):
    run(c)
"""


def interrupted(
    project: Project, tmp_path: Path, program: str, module: str, *words: str
) -> subprocess.CompletedProcess[str]:
    """Run a line that gets SIGINT when it begins to import *module*."""
    (tmp_path / "sitecustomize.py").write_text(HOOK)
    environ = {**project.environ, "PYTHONPATH": str(tmp_path), "INTERRUPT_AT": module}
    line = [str(Path(sys.executable).parent / program), *words]
    return subprocess.run(
        line, cwd=project.root, env=environ, capture_output=True, text=True, check=False
    )


@pytest.mark.fast
@pytest.mark.parametrize("module", [*STARTING, *RUNNING])
@pytest.mark.parametrize("program", ["onebox", "inv"])
def test_each_moment_of_the_start_ends_with_130(
    project: Project, tmp_path: Path, program: str, module: str
) -> None:
    """Nothing is created, and nothing is printed before the chain has begun."""
    done = interrupted(project, tmp_path, program, module, "run")

    assert 130 == done.returncode, done.stderr
    assert "Traceback" not in done.stderr
    if module in STARTING:
        assert ("", "") == (done.stdout, done.stderr)
    assert [] == project.boxes()


@pytest.mark.fast
@pytest.mark.parametrize("words", [["--list"], ["--help", "run"], ["run", "--nmae=x"]])
def test_lists_and_mistakes_can_be_interrupted(
    project: Project, tmp_path: Path, words: list[str]
) -> None:
    """Lines that run no task end in the same way."""
    for module in ("onebox.plugin", "onebox.command_line"):
        done = interrupted(project, tmp_path, "onebox", module, *words)
        assert (130, "", "") == (done.returncode, done.stdout, done.stderr)


@pytest.mark.fast
@pytest.mark.parametrize("words", [[], ["mine"]])
def test_tasks_of_the_user_get_what_python_raises(
    project: Project, tmp_path: Path, words: list[str]
) -> None:
    """A task that is no stage of onebox can still clean up after KeyboardInterrupt."""
    project.write("tasks.py", OWN)
    done = interrupted(project, tmp_path, "inv", "colorsys", *words)

    assert (1, "mine stopped\n") == (done.returncode, done.stdout)


@pytest.mark.fast
def test_a_stage_called_by_a_task_ends_with_130(
    project: Project, tmp_path: Path
) -> None:
    """The code of the task can clean up, because an exception reaches it."""
    project.write("tasks.py", OWN)
    done = interrupted(project, tmp_path, "inv", "onebox.settings.schema", "late")

    assert 130 == done.returncode
    assert "Traceback" not in done.stderr


@pytest.mark.fast
def test_a_program_that_imports_onebox_keeps_its_handler() -> None:
    """Only `onebox` and `inv` are ended by Ctrl-C at once."""
    code = (
        "import onebox, signal\n"
        "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False)

    assert 0 == done.returncode
