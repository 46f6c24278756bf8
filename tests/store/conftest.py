"""A store for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from onebox.store.box_store import BoxStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[BoxStore]:
    """A store with one update."""
    made = BoxStore(tmp_path / "state" / "census" / "main")
    made.update(box="ob-first", hourly=1.5)
    yield made
    made.unlock()
