"""Thousands of nested folders are pushed, fetched, refused and removed correctly."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from onebox.agent.file_names import Hostile
from onebox.agent.files import folder_writer
from onebox.agent.files.manifest import Entry, check
from onebox.errors import OutputsHeld
from onebox.providers.local import directories
from onebox.transfer.gitignore import tracked_without_git
from tests.fakes.agent_box import AgentBox
from tests.transfer.synced_project import SyncedProject

# More than Python lets a function call itself, in a path that Linux still takes.
LEVELS = 1_400
# A path to the innermost folder is longer than Linux takes.
TOO_DEEP = 3_000


@pytest.fixture
def project(tmp_path: Path, agent_box: AgentBox) -> Iterator[SyncedProject]:
    """A project and its box; their deep trees are removed, which pytest cannot do."""
    yield SyncedProject(tmp_path, agent_box)
    agent_box.close()
    for path in tmp_path.iterdir():
        directories.remove(path)


def nest(base: Path, levels: int) -> None:
    """Create nested folders with a file in the innermost one."""
    base.mkdir(parents=True, exist_ok=True)
    fd = os.open(base, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("x", dir_fd=fd)
        inner = os.open("x", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(os.open("end", os.O_WRONLY | os.O_CREAT, dir_fd=fd))
    os.close(fd)


def test_deep_trees_are_pushed_and_fetched(project: SyncedProject) -> None:
    """A tree may have any depth if its paths are short enough."""
    nest(project.root / "code", LEVELS)
    project.push()
    assert project.box.work.joinpath("code", *["x"] * LEVELS, "end").is_file()
    nest(project.box.work / "out", LEVELS)
    project.fetch()
    assert project.root.joinpath("out", *["x"] * LEVELS, "end").is_file()
    assert project.verify() is None
    assert project.fetch().kept_aside == []


def test_outputs_with_too_long_paths_are_refused(project: SyncedProject) -> None:
    """The error names the reason, and shortens the path."""
    nest(project.box.work / "out", TOO_DEEP)
    with pytest.raises(OutputsHeld, match="File name too long") as raised:
        project.fetch()

    assert len(raised.value.message) < 1_000


def test_folder_of_any_depth_is_removed(project: SyncedProject, tmp_path: Path) -> None:
    """Removal needs no recursion, no long path and few descriptors."""
    nest(tmp_path / "deep", TOO_DEEP)
    (tmp_path / "deep" / "beside").mkdir()
    (tmp_path / "deep" / "beside" / "link").symlink_to(project.root)
    fd = os.open(tmp_path, os.O_RDONLY)
    folder_writer.remove(fd, b"deep")
    folder_writer.remove(fd, b"deep")
    os.close(fd)

    assert not (tmp_path / "deep").exists()
    assert project.root.is_dir()


def test_manifest_check_accepts_deep_paths_and_refuses_too_long_ones() -> None:
    """The check does not recurse; a path that no system accepts is refused."""
    check([Entry(b"/".join([b"out", *[b"x"] * 2_000]), "f", 0o644)], [b"out"])
    with pytest.raises(Hostile, match="too long"):
        check([Entry(b"/".join([b"out", *[b"x"] * 20_000]), "f", 0o644)], [b"out"])


def test_code_without_git_is_selected_at_any_depth(project: SyncedProject) -> None:
    """A project that is no repository may have thousands of nested folders."""
    nest(project.root / "code", LEVELS)
    found = tracked_without_git(os.fsencode(project.root), [b"code"])
    assert found == {b"code" + b"/x" * LEVELS + b"/end"}
