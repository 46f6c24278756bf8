"""A box that the tests of a module share: they must not change it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ...ending import ends_with_us
from ..conftest import boxes
from ..sshbox import Keys, SshBox


@pytest.fixture(scope="module")
def box(keys: Keys) -> Iterator[SshBox]:
    """A running box."""
    with tempfile.TemporaryDirectory(prefix="onebox-", dir="/var/tmp") as path:
        ends_with_us(Path(path))
        for open_box in boxes(Path(path), keys):
            yield open_box()
