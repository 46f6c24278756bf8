"""An interrupted test run leaves no box."""

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

pytestmark = pytest.mark.slow

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
def test_boxes_end_with_their_test_process(
    tmp_path: Path, number: signal.Signals
) -> None:
    """Its boxes and their folder are removed, also if the test process is killed."""
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
        wait_for_path(lambda: data.exists() and data.read_text() != "")
        home = Path(data.read_text())
        assert living_in(home)
        run.send_signal(number)
        run.wait(300)
        wait_for_path(lambda: not living_in(home) and not home.exists())
    finally:
        run.kill()
        run.wait()


def wait_for_path(come: Callable[[], bool]) -> None:
    """Wait until a path exists."""
    end = time.monotonic() + 300
    while not come():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)
