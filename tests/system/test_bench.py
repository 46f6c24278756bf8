"""The benchmark: it runs, whatever the figures are."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

BENCH = Path(__file__).resolve().parents[2] / "bench" / "run.py"
UNITS = BENCH.with_name("units.py")


@pytest.mark.skipif(shutil.which("rsync") is None, reason="needs rsync as a peer")
def test_benchmark_compares_onebox_with_its_peers() -> None:
    """A small round of transfers ends with a table that names both sides."""
    done = subprocess.run(
        [sys.executable, BENCH, "changed", "--small", "--rounds", "1"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "push-changed" in done.stdout
    assert "rsync, open master" in done.stdout


def test_benchmark_of_units_compares_the_pool_with_its_peers() -> None:
    """A small round of units ends with a table that names both sides."""
    done = subprocess.run(
        [sys.executable, UNITS, "makespan", "--units", "2", "--rounds", "1"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "`makespan` 2 units" in done.stdout
    assert "xargs -P" in done.stdout
