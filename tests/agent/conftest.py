"""Small disks and small memories, for the tests of the agent."""

from __future__ import annotations

import contextlib
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.agent_box import AgentBox, until


@pytest.fixture
def memory_limit() -> Iterator[Path]:
    """The `cgroup.procs` file of a cgroup that is limited to 64 MB."""
    group = small_cgroup()
    if group is None:
        pytest.skip("no memory cgroup can be made here: that takes root and a v1 or v2")
    members = group / "cgroup.procs"
    yield members
    until(lambda: not members.read_text())
    group.rmdir()


def small_cgroup() -> Path | None:
    """
    Create a cgroup with 64 MB, of either version; return None if that is impossible.
    """
    for base, limit in (
        (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
        (Path("/sys/fs/cgroup"), "memory.max"),
    ):
        group = base / f"onebox-test-{secrets.token_hex(4)}"
        with contextlib.suppress(OSError):
            group.mkdir()
            try:
                (group / limit).write_text(str(64 << 20))
            except OSError:
                group.rmdir()
                raise
            return group
    return None


@pytest.fixture
def small_disk(agent_box: AgentBox) -> Iterator[AgentBox]:
    """A box with a disk of 16 MB for everything."""
    base = agent_box.root.parent
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "onebox-test", str(base)],
        capture_output=True,
    )
    if made.returncode:
        pytest.skip("no small disk can be mounted here: that takes root")
    try:
        box = AgentBox(base)
        yield box
        box.close()
    finally:
        subprocess.run(["umount", "-l", str(base)], check=True)
