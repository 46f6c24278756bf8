"""
Shorter pauses between polls for the `inv` lines of a test.

A cloud's provider polls every few seconds, and a fake answers at once. The clock stays
right, so that time limits are as long as they are for users.
"""

from __future__ import annotations

from pathlib import Path

from tests.fakes import warm_processes

SHORTER = """\
import time

sleep = time.sleep
time.sleep = lambda seconds: sleep(seconds / 8 if seconds >= 1 else seconds)
"""


def short_pauses(folder: Path) -> dict[str, str]:
    """Return variables that shorten an `inv` line's long pauses eightfold."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(SHORTER)
    return {"PYTHONPATH": warm_processes.load_late(str(folder))}
