"""Files are written atomically, and are private to the user."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from onebox.store.atomic_files import private_dir, write_atomically
from onebox.store.box_store import BoxStore
from onebox.store.identity import owner
from tests.store.processes import leave_intent_open, names


def test_files_and_directories_of_onebox_are_private(tmp_path: Path) -> None:
    """Only this user can enter onebox's directories and read their files."""
    before = os.umask(0)
    try:
        owner(tmp_path / "a" / "config")
        store = BoxStore(tmp_path / "a" / "state" / "projects" / "x" / "main")
        store.update(box="b")
        leave_intent_open(store, "create")
        store.lock("inv run")
        store.unlock()
    finally:
        os.umask(before)
    found = {
        (path.is_dir(), stat.S_IMODE(path.stat().st_mode))
        for path in (tmp_path / "a", *(tmp_path / "a").rglob("*"))
    }

    assert {(True, 0o700), (False, 0o600)} == found


def test_existing_directory_keeps_its_mode(tmp_path: Path) -> None:
    """A directory that existed before keeps its mode."""
    tmp_path.chmod(0o755)
    private_dir(tmp_path / "ours")

    assert 0o755 == stat.S_IMODE(tmp_path.stat().st_mode)


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_write_atomically_sets_content_and_mode(tmp_path: Path, mode: int) -> None:
    """The file has the new content and the requested mode."""
    path = tmp_path / "file"
    path.write_text("old")
    write_atomically(path, b"new", mode)

    assert (b"new", mode) == (path.read_bytes(), stat.S_IMODE(path.stat().st_mode))
    assert ["file"] == names(tmp_path)
