"""
How far the units of a job are, in files that a client can read at any time.

Both files have a fixed size and are overwritten in place, so that they can be updated
on a full disk. `units-progress` has the counts. `units-running` has a line for each
unit that can run at once: the number of the unit that runs there, or 0.
"""

from __future__ import annotations

import json
import os
from typing import Any, Dict, NamedTuple, Optional

from ..box import read as read_file

NAME = "units-progress"
RUNNING = "units-running"
WIDTH = 512
LINE = b"%7d\n"


class Progress(NamedTuple):
    """
    How far the units of a job are.

    *done* counts those that exited with 0, also the *skipped* ones, which were done
    before. *left* counts those that have not ended, also the *running* ones. *mean* is
    the mean time in seconds of the units that exited with 0 in this job.
    """

    total: int
    done: int
    failed: int
    running: int
    left: int
    skipped: int
    at_once: int
    mean: Optional[float]


def prepare(directory: str) -> None:
    """Create the file of the counts, with its full size. Raises OSError."""
    path = os.path.join(directory, NAME)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, b"null\n".rjust(WIDTH))
    finally:
        os.close(fd)


class ProgressFiles:
    """Updates both files in a job's directory; errors of the disk are ignored."""

    def __init__(self, directory: str, at_once: int) -> None:
        self._progress = _open(os.path.join(directory, NAME))
        self._running = _open(os.path.join(directory, RUNNING))
        _write(self._running, LINE % 0 * at_once, 0)

    def update(self, progress: Progress) -> None:
        """Write the counts."""
        line = json.dumps(progress._asdict(), separators=(",", ":")).encode("ascii")
        _write(self._progress, (line + b"\n").rjust(WIDTH), 0)

    def set_running(self, slot: int, number: int) -> None:
        """Note that the unit *number* runs in a slot, which counts from 0."""
        line = LINE % number
        _write(self._running, line, slot * len(line))


def read(directory: str) -> Optional[Dict[str, Any]]:
    """Return the counts of a job as `Progress` has them, None if it has no units."""
    # A read during a write may return parts of both, so it is repeated once.
    for _ in range(2):
        data = read_file(os.path.join(directory, NAME))
        if not data:
            return None
        try:
            value = json.loads(data)
            return Progress(**value)._asdict() if value else None
        except (ValueError, TypeError):
            continue
    return None


def is_running(directory: str, number: int) -> bool:
    """Return whether the job's pool, if it lives, runs the unit *number*."""
    return b"%d" % number in read_file(os.path.join(directory, RUNNING)).split()


def _open(path: str) -> int:
    """Return a descriptor of the file, -1 if it cannot be opened."""
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return -1


def _write(fd: int, data: bytes, offset: int) -> None:
    try:
        os.pwrite(fd, data, offset)
    except OSError:
        return
