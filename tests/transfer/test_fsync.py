"""Fetched files are written to the disk, with one call or with one for each file."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from onebox.transfer import fsync


def opened(folder: Path) -> int:
    """Return a descriptor of a folder."""
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY)


def test_few_files_are_synced_one_by_one(tmp_path: Path) -> None:
    """For a few files, no other data on the disk are waited for."""
    (tmp_path / "a").write_text("1")
    fd = opened(tmp_path)
    try:
        assert not fsync.sync_file_system(fd, fsync.MANY - 1)
        fsync.sync_files(fd, [b"a"])
        with pytest.raises(FileNotFoundError):
            fsync.sync_files(fd, [b"a", b"gone"])
    finally:
        os.close(fd)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is no such call")
def test_syncfs_is_used_for_local_file_systems_only() -> None:
    """On other file systems, each file is synced separately."""
    fd = opened(Path("/proc"))
    try:
        assert not fsync.sync_file_system(fd, 10**6)
    finally:
        os.close(fd)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is no such call")
def test_syncfs_is_used_for_many_files(tmp_path: Path) -> None:
    """One call syncs the file system, and no file is opened."""
    fd = opened(tmp_path)
    try:
        if not fsync.sync_file_system(fd, fsync.MANY):
            pytest.skip("not on this kind of disk, or not by this kernel")
        fsync.sync_files(fd, [b"not there"] * fsync.MANY)
    finally:
        os.close(fd)
