"""A folder that is renamed keeps its box; no other folder gets at it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.conftest import TOML, Project


def renamed(project: Project) -> Path:
    """Rename the project's folder; return where it is now."""
    new = project.root.with_name("survey")
    project.root.rename(new)
    return new


@pytest.mark.parametrize("line", [("teardown",), ("run",)])
def test_renamed_project_keeps_its_box(project: Project, line: tuple[str, ...]) -> None:
    """After a rename the box is seen, used, and torn down."""
    assert 0 == project.inv("run", "--keep").code
    (box,) = project.boxes()
    new = renamed(project)

    assert f"survey/main   {box}" in project.inv("status", cwd=new).out
    assert 0 == project.inv(*line, cwd=new).code
    assert [box] * (line == ("run",)) == project.boxes()


def test_copy_is_a_project_of_its_own(project: Project) -> None:
    """A copy of a folder, with all that is hidden in it, has no box yet."""
    assert 0 == project.inv("provision").code
    copy = project.root.with_name("census2")
    shutil.copytree(project.root, copy)

    assert "no box is up" in project.inv("status", cwd=copy).out
    assert 0 == project.inv("teardown", cwd=copy).code
    assert 1 == len(project.boxes())
    assert 0 == project.inv("teardown").code
    assert [] == project.boxes()


def test_new_project_in_the_old_place_is_another_one(project: Project) -> None:
    """Where a renamed folder was, a new project does not see its box."""
    assert 0 == project.inv("provision").code
    old, new = project.root, renamed(project)
    assert 0 == project.inv("status", cwd=new).code
    old.mkdir()
    for name in ("tasks.py", "onebox.toml", "job.sh"):
        shutil.copy(new / name, old / name)

    assert "no box is up" in project.inv("status").out
    assert 0 == project.inv("run").code
    assert 0 == project.inv("teardown").code
    assert 1 == len(project.boxes())
    assert 0 == project.inv("teardown", cwd=new).code
    assert [] == project.boxes()


def test_name_in_onebox_toml_decides(project: Project) -> None:
    """A project that onebox.toml names is that one, in whatever folder."""
    project.write("onebox.toml", f'project = "poll"\n{TOML}')
    assert 0 == project.inv("provision").code
    copy = project.root.with_name("census2")
    shutil.copytree(project.root, copy)

    assert "poll/main" in project.inv("status", cwd=copy).out
    assert 0 == project.inv("teardown", cwd=copy).code
    assert [] == project.boxes()
