"""onebox's folders are private, whatever umask a command inherits."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Project


@pytest.fixture
def open_umask() -> Iterator[None]:
    """Start processes with a umask that lets everybody write."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("open_umask")
def test_folders_are_private_even_with_umask_000(project: Project) -> None:
    """
    State, identity, boxes and .onebox are private to the user, also with umask 000.
    """
    for line in (("run", "--keep"), ("fetch",), ("status",)):
        done = project.inv(*line)
        assert not done.code, done.err
    folders = [project.home / name for name in ("state", "config", "local")]
    found = list(_open_folders([*folders, project.root / ".onebox"]))
    assert found == []


@pytest.mark.usefixtures("open_umask")
def test_open_folder_of_boxes_is_made_private(project: Project) -> None:
    """
    The folder `local`, which an older version left open, is made private on first
    use.
    """
    root = project.home / "local"
    root.mkdir(mode=0o777)
    done = project.inv("provision")
    assert not done.code, done.err
    assert stat.S_IMODE(root.stat().st_mode) == 0o755


def _open_folders(folders: list[Path]) -> Iterator[tuple[Path, str]]:
    """Yield each folder that others can enter, except inside of boxes."""
    for top in folders:
        for path, names, _ in os.walk(top):
            mode = stat.S_IMODE(Path(path).stat().st_mode)
            if mode & 0o077:
                yield Path(path), oct(mode)
            if "disk" in names:
                names.remove("disk")
