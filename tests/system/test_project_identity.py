"""A renamed folder keeps its box, and no other folder gets it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.conftest import TOML, Project


def rename_project(project: Project) -> Path:
    """Rename the project's folder; return the project at its new path."""
    new = project.root.with_name("survey")
    project.root.rename(new)
    return new


@pytest.mark.parametrize("line", [("teardown",), ("run",)])
def test_renamed_project_keeps_its_box(project: Project, line: tuple[str, ...]) -> None:
    """After a rename, the box is listed, used and deleted."""
    assert 0 == project.inv("run", "--keep").code
    (box,) = project.boxes()
    new = rename_project(project)

    assert f"survey/main   {box}" in project.inv("status", cwd=new).out
    assert 0 == project.inv(*line, cwd=new).code
    assert [box] * (line == ("run",)) == project.boxes()


def test_copy_is_a_project_of_its_own(project: Project) -> None:
    """A copy of a folder, with its hidden files, has no box."""
    assert 0 == project.inv("provision").code
    copy = project.root.with_name("census2")
    shutil.copytree(project.root, copy)

    assert "no box is up" in project.inv("status", cwd=copy).out
    assert 0 == project.inv("teardown", cwd=copy).code
    assert 1 == len(project.boxes())
    assert 0 == project.inv("teardown").code
    assert [] == project.boxes()


def test_new_project_in_the_old_place_is_another_one(project: Project) -> None:
    """A new project at the old path of a renamed folder does not see its box."""
    assert 0 == project.inv("provision").code
    old, new = project.root, rename_project(project)
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


def test_project_name_in_onebox_toml_precedes_the_folder(project: Project) -> None:
    """The project has this name in any folder."""
    project.write("onebox.toml", f'project = "poll"\n{TOML}')
    assert 0 == project.inv("provision").code
    copy = project.root.with_name("census2")
    shutil.copytree(project.root, copy)

    assert "poll/main" in project.inv("status", cwd=copy).out
    assert 0 == project.inv("teardown", cwd=copy).code
    assert [] == project.boxes()
