"""A project and its box for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.agent_box import AgentBox
from tests.transfer.synced_project import SyncedProject


@pytest.fixture
def project(tmp_path: Path, agent_box: AgentBox) -> SyncedProject:
    """A project and its box, both empty."""
    return SyncedProject(tmp_path, agent_box)
