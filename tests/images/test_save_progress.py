"""The line of a save on a terminal."""

from __future__ import annotations

import shutil

import pytest

from tests.conftest import Project
from tests.system.test_terminal import exit_code, start_in_terminal

SETUP = '[image]\nsetup = "setup.sh"\n[run]\ncommand = "true"\n'


@pytest.fixture
def slow_copy(project: Project) -> None:
    """A `cp` that takes longer than the time between two reports."""
    real = shutil.which("cp")
    program = project.root.parent / "slow" / "cp"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\n{real} "$@" && sleep 2\n')
    program.chmod(0o755)
    project.environ["PATH"] = f"{program.parent}:{project.environ['PATH']}"


@pytest.mark.usefixtures("slow_copy")
@pytest.mark.parametrize(
    "words", [["image"], ["image", "--from-box", "--as=geo"]], ids=["build", "box"]
)
def test_save_shows_how_much_is_saved(project: Project, words: list[str]) -> None:
    """The bar shows percent and bytes, both in a build and with --from-box."""
    project.write("onebox.toml", SETUP)
    project.write("setup.sh", "head -c 3000000 /dev/zero >~/file\n")
    if "--from-box" in words:
        project.inv("provision")
    with start_in_terminal(project, *words, columns=100) as child:
        child.expect(r"\d+% saved  [0-9.]+ [kM]?B/2.9 MB")
        assert exit_code(child) == 0
