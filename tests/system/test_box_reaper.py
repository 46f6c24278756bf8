"""What a test run that is interrupted leaves behind: nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.box_reaper import living_in

ROOT = Path(__file__).parents[2]
TEST = """\
from pathlib import Path
import time

def test_that_is_interrupted(project):
    project.inv("provision")
    assert project.boxes()
    (Path(__file__).parent / "home").write_text(str(project.home))
    time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_boxes_die_with_the_test_run(tmp_path: Path, number: signal.Signals) -> None:
    """
    The boxes of a test process end with it, also when it is killed, and their folder.
    """
    (tmp_path / "test_one.py").write_text(TEST)
    data = tmp_path / "home"
    run = subprocess.Popen(
        [
            *(sys.executable, "-m", "pytest", "-q", "-c", os.devnull),
            *("-p", "tests.conftest", "-p", "no:cacheprovider"),
            *("--rootdir", tmp_path, tmp_path / "test_one.py"),
        ],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: data.exists() and data.read_text() != "")
        home = Path(data.read_text())
        assert living_in(home)
        run.send_signal(number)
        run.wait(300)
        until(lambda: not living_in(home) and not home.exists())
    finally:
        run.kill()
        run.wait()


def until(come: Callable[[], bool]) -> None:
    """Wait for something that must come."""
    end = time.monotonic() + 300
    while not come():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)
