"""Outputs are fetched into a folder that is a disk of its own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from onebox.transfer import other_disk
from tests.transfer.synced_project import SyncedProject, refused, snapshot


@pytest.fixture
def disk(project: SyncedProject) -> Iterator[Path]:
    """The folder for the outputs, with a small disk mounted on it."""
    place = project.root / "out"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "onebox-test", str(place)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no disk can be mounted here: that takes root")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_outputs_are_copied_to_another_disk(project: SyncedProject, disk: Path) -> None:
    """Modes, times, links and folders are those of the box; edited files are kept."""
    project.job("out/a", b"1").chmod(0o640)
    project.job("out/deep/b", b"2" * 100_000)
    (project.box.work / "out/link").symlink_to("deep/b")
    (project.box.work / "out/empty").mkdir()
    project.fetch()
    assert snapshot(disk) == snapshot(project.box.work / "out")
    on_box = (project.box.work / "out/a").stat()
    assert on_box.st_mtime_ns == (disk / "a").stat().st_mtime_ns

    (disk / "a").write_bytes(b"mine")
    project.job("out/a", b"3")
    fetched = project.fetch()
    assert [(b"out/a", b"out/a~")] == fetched.kept_aside
    assert (b"3", b"mine") == ((disk / "a").read_bytes(), (disk / "a~").read_bytes())
    assert project.verify() is None
    names = {path.name for path in disk.iterdir()}
    assert {"a", "a~", "deep", "link", "empty"} == names


def test_file_of_any_name_stays_on_another_disk(
    project: SyncedProject, disk: Path
) -> None:
    """A copy or link under way has a name that no output or file of the user has."""
    mine = f"link-{os.getpid()}"
    (disk / mine).mkdir()
    (disk / mine / "kept").write_bytes(b"mine")
    for name in (".onebox-copy", ".onebox-draft", "zz"):
        project.job(f"out/{name}", name.encode())
    (project.box.work / "out/l").symlink_to("zz")
    project.fetch()

    assert project.verify() is None
    assert b"mine" == (disk / mine / "kept").read_bytes()
    names = {path.name for path in disk.iterdir()}
    assert {mine, ".onebox-copy", ".onebox-draft", "zz", "l"} == names


def test_copy_that_a_crash_has_cut_off_is_replaced(
    project: SyncedProject, disk: Path
) -> None:
    """The next copy into the folder has the same name, and then the file's own."""
    project.memory.mkdir()
    draft = disk / os.fsdecode(other_disk.copy_name(project.memory))
    draft.write_bytes(b"a part")
    project.job("out/a")
    project.fetch()

    assert ["a"] == [path.name for path in disk.iterdir()]


def test_full_disk_keeps_the_outputs_on_the_box(
    project: SyncedProject, disk: Path
) -> None:
    """No part of a file has its final name, and a later fetch completes."""
    project.job("out/big", b"x" * (5 << 20))
    with refused("the disk is full"):
        project.fetch()
    assert [] == list(disk.iterdir())

    subprocess.run(["mount", "-o", "remount,size=16m", str(disk)], check=True)
    project.fetch()
    assert 5 << 20 == (disk / "big").stat().st_size
