"""`tests/rerun.py`, which `inv check` uses, runs failed tests a second time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
FLAKY = """
from pathlib import Path

def test_passes():
    pass

def test_fails_once():
    marker = Path(__file__).with_name("ran")
    ran = marker.exists()
    marker.touch()
    assert ran, "the first failure"
"""
BROKEN = "def test_is_broken():\n    assert 1 == 2\n"


def rerun(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the tests of a small project with `tests.rerun`."""
    (folder / "pytest.ini").write_text("[pytest]\naddopts = -p no:cacheprovider\n")
    return subprocess.run(
        [sys.executable, "-m", "tests.rerun", *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        check=False,
    )


def test_test_that_passes_alone_is_reported_as_flaky(
    tmp_path: Path,
) -> None:
    """The run passes, and the first failure is printed."""
    (tmp_path / "test_flaky.py").write_text(FLAKY)
    done = rerun(tmp_path, "-n", "2")
    assert 0 == done.returncode
    _, _, after = done.stdout.partition("flaky: ")
    assert after.startswith("test_flaky.py::test_fails_once\n")
    assert "the first failure" in after


def test_test_that_fails_twice_fails_the_run(tmp_path: Path) -> None:
    """The test is named, and is not flaky."""
    (tmp_path / "test_flaky.py").write_text(FLAKY)
    (tmp_path / "test_broken.py").write_text(BROKEN)
    done = rerun(tmp_path)
    assert 1 == done.returncode
    assert "flaky: test_flaky.py::test_fails_once\n" in done.stdout
    assert "failed twice: test_broken.py::test_is_broken\n" in done.stdout
    assert "flaky: test_broken.py" not in done.stdout


def test_run_without_tests_fails(tmp_path: Path) -> None:
    """A run that finds no test has not passed."""
    assert 5 == rerun(tmp_path).returncode
