"""Folders of ours are private, whatever umask a command inherits."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Project


@pytest.fixture
def open_umask() -> Iterator[None]:
    """Have all that is started now make files that everybody may write."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("open_umask")
def test_no_folder_of_ours_is_open_to_others_under_any_umask(project: Project) -> None:
    """State, identity, boxes and .onebox are this user's alone, with umask 000 too."""
    for line in (("run", "--keep"), ("fetch",), ("status",)):
        done = project.inv(*line)
        assert not done.code, done.err
    folders = [project.home / name for name in ("state", "config", "local")]
    found = list(_open_folders([*folders, project.root / ".onebox"]))
    assert found == []


@pytest.mark.usefixtures("open_umask")
def test_a_root_of_boxes_that_others_may_write_is_closed(project: Project) -> None:
    """The folder `local`, which an older version left open, is closed on first use."""
    root = project.home / "local"
    root.mkdir(mode=0o777)
    done = project.inv("provision")
    assert not done.code, done.err
    assert stat.S_IMODE(root.stat().st_mode) == 0o755


def _open_folders(folders: list[Path]) -> Iterator[tuple[Path, str]]:
    """Yield each folder that others can enter, but for what lies in a box."""
    for top in folders:
        for path, names, _ in os.walk(top):
            mode = stat.S_IMODE(Path(path).stat().st_mode)
            if mode & 0o077:
                yield Path(path), oct(mode)
            if "disk" in names:
                names.remove("disk")
