"""Folders nested by the thousand are pushed, fetched, refused and removed by rule."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from onebox.agent.file_names import Hostile
from onebox.agent.files import tree
from onebox.agent.files.manifest import Entry, check
from onebox.errors import OutputsHeld
from onebox.providers.local import directories
from onebox.transfer.gitignore import tracked_without_git

from .conftest import AgentBox
from .test_sync import Project

# More than Python lets a function call itself, in a path that Linux still takes.
LEVELS = 1_400
# A path to the innermost folder is longer than Linux takes.
TOO_DEEP = 3_000


@pytest.fixture
def project(tmp_path: Path, agent_box: AgentBox) -> Iterator[Project]:
    """A project and its box; deep trees in them go, which pytest could not remove."""
    yield Project(tmp_path, agent_box)
    agent_box.close()
    for path in tmp_path.iterdir():
        directories.remove(path)


def nest(base: Path, levels: int) -> None:
    """Make folders in one another, with a file in the innermost."""
    base.mkdir(parents=True, exist_ok=True)
    fd = os.open(base, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("x", dir_fd=fd)
        inner = os.open("x", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(os.open("end", os.O_WRONLY | os.O_CREAT, dir_fd=fd))
    os.close(fd)


def test_deep_trees_are_pushed_and_fetched(project: Project) -> None:
    """The depth of a tree is no limit as long as its paths are not too long."""
    nest(project.root / "code", LEVELS)
    project.push()
    assert project.box.work.joinpath("code", *["x"] * LEVELS, "end").is_file()
    nest(project.box.work / "out", LEVELS)
    project.fetch()
    assert project.root.joinpath("out", *["x"] * LEVELS, "end").is_file()
    assert project.verify() is None
    assert project.fetch().kept_aside == []


def test_outputs_with_too_long_paths_are_refused(project: Project) -> None:
    """The error names the reason, and not all of the path."""
    nest(project.box.work / "out", TOO_DEEP)
    with pytest.raises(OutputsHeld, match="File name too long") as raised:
        project.fetch()

    assert len(raised.value.message) < 1_000


def test_a_folder_of_any_depth_is_removed(project: Project, tmp_path: Path) -> None:
    """Removal takes no recursion, no long path and few descriptors."""
    nest(tmp_path / "deep", TOO_DEEP)
    (tmp_path / "deep" / "beside").mkdir()
    (tmp_path / "deep" / "beside" / "link").symlink_to(project.root)
    fd = os.open(tmp_path, os.O_RDONLY)
    tree.remove(fd, b"deep")
    tree.remove(fd, b"deep")
    os.close(fd)

    assert not (tmp_path / "deep").exists()
    assert project.root.is_dir()


def test_deep_manifests_are_checked() -> None:
    """A deep path is checked without recursion, one that no system takes is refused."""
    check([Entry(b"/".join([b"out", *[b"x"] * 2_000]), "f", 0o644)], [b"out"])
    with pytest.raises(Hostile, match="too long"):
        check([Entry(b"/".join([b"out", *[b"x"] * 20_000]), "f", 0o644)], [b"out"])


def test_code_without_git_is_selected_at_any_depth(project: Project) -> None:
    """A project that is no repository may have folders nested by the thousand."""
    nest(project.root / "code", LEVELS)
    found = tracked_without_git(os.fsencode(project.root), [b"code"])
    assert found == {b"code" + b"/x" * LEVELS + b"/end"}
