"""A box with almost no free space: every write may be the one that fails."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from onebox.errors import BoxFailed
from onebox.remote.channel import AgentError
from tests.fakes.agent_box import AgentBox
from tests.transfer.synced_project import SyncedProject

PAGE = os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def project(tmp_path: Path) -> Iterator[SyncedProject]:
    """A project, and a box whose whole disk has 8 MB."""
    base = tmp_path / "box"
    base.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "onebox-test", str(base)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no small disk can be mounted here: that takes root")
    try:
        box = AgentBox(base)
        yield SyncedProject(tmp_path, box)
        box.close()
    finally:
        subprocess.run(["umount", "-l", str(base)], check=True)


@contextlib.contextmanager
def free_pages(box: AgentBox, pages: int) -> Iterator[None]:
    """Fill the box's disk until this number of pages is free."""
    filling = box.home / "filling"
    disk = os.statvfs(box.root)
    filling.write_bytes(bytes(max(disk.f_bavail * disk.f_frsize - pages * PAGE, 0)))
    try:
        yield
    finally:
        filling.unlink()


def test_push_to_a_nearly_full_disk_is_complete_or_refused(
    project: SyncedProject,
) -> None:
    """
    With any free space a push is complete or refused; with enough space it
    continues.
    """
    fates = set()
    for pages in range(0, 26, 3):
        for number in range(12):
            project.write(f"dir/{number}", b"%d %d " % (pages, number) * 700)
        try:
            with free_pages(project.box, pages):
                project.push()
        except BoxFailed as error:
            assert "space" in str(error) or "disk" in str(error)
            fates.add("refused")
        else:
            assert project.difference() is None
            fates.add("whole")
        project.push()
        assert project.difference() is None
        for path in project.root.rglob("dir/*"):
            pushed = project.box.work / path.relative_to(project.root)
            assert path.read_bytes() == pushed.read_bytes()
    assert fates == {"refused", "whole"}


def test_job_on_a_nearly_full_disk_is_recorded_or_refused(
    project: SyncedProject,
) -> None:
    """With any free space a job runs and is recorded, or is refused."""
    fates = set()
    for pages in range(24):
        job = f"j{pages}"
        with project.box.connect() as link, free_pages(project.box, pages):
            try:
                link.request("start", job=job, shell="echo hello; exit 7")
            except AgentError as error:
                assert "No space left" in error.message
                assert link.request("job", job=job)["state"] == "none"
                fates.add("refused")
            else:
                link.begin("follow", job=job, offset=0)
                record = link.finish()["record"]
                assert record["code"] == 7
                fates.add("ran")
    with project.box.connect() as link:
        link.request("start", job="last", shell="exit 0")
        link.begin("follow", job="last", offset=0)
        assert link.finish()["record"]["code"] == 0
    assert fates == {"refused", "ran"}
    left = [path.name for path in (project.box.root / "jobs").iterdir()]
    assert [name for name in left if name.startswith(".new")] == []
