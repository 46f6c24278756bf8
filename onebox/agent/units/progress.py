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
from . import share

NAME = "units-progress"
RUNNING = "units-running"
# The exit record of a pool that is one of several (`onebox.agent.jobs.exit_record`).
EXIT = "exit"
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


def prepare(directory: str, first: Optional[Progress] = None) -> None:
    """
    Create the file of the counts, with its full size. Raises OSError.

    Args:
        first: The counts before a pool has started, if they are known.
    """
    path = os.path.join(directory, NAME)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, (_line(first) if first else b"null\n").rjust(WIDTH))
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
        _write(self._progress, _line(progress).rjust(WIDTH), 0)

    def set_running(self, slot: int, number: int) -> None:
        """Note that the unit *number* runs in a slot, which counts from 0."""
        line = LINE % number
        _write(self._running, line, slot * len(line))


def read(directory: str) -> Optional[Dict[str, Any]]:
    """
    Return the counts of a job as `Progress` has them, None if it has no units.

    If several pools run the units, the counts are those of all pools.
    """
    whole = _read(directory)
    pools = share.directories(directory)
    if whole is None or not pools:
        return None if whole is None else whole._asdict()
    parts = [part for part in map(_read_pool, pools) if part is not None]
    done, failed = sum(p.done for p in parts), sum(p.failed for p in parts)
    ran = [(p.mean, p.done - p.skipped) for p in parts if p.mean is not None]
    count = sum(number for _, number in ran)
    mean = sum(mean * number for mean, number in ran) / count if count else None
    return whole._replace(
        done=done,
        failed=failed,
        running=sum(part.running for part in parts),
        left=whole.total - done - failed,
        skipped=sum(part.skipped for part in parts),
        mean=None if mean is None else round(mean, 3),
    )._asdict()


# The counts of pools that have ended, by directory: they are not read again.
_final: Dict[str, Progress] = {}


def _read_pool(directory: str) -> Optional[Progress]:
    if directory in _final:
        return _final[directory]
    ended = os.path.exists(os.path.join(directory, EXIT))
    counts = _read(directory)
    if ended and counts is not None:
        _final[directory] = counts
    return counts


def _read(directory: str) -> Optional[Progress]:
    # A read during a write may return parts of both, so it is repeated once.
    for _ in range(2):
        data = read_file(os.path.join(directory, NAME))
        if not data:
            return None
        try:
            value = json.loads(data)
            return Progress(**value) if value else None
        except (ValueError, TypeError):
            continue
    return None


def is_running(directory: str, number: int) -> bool:
    """Return whether the job's pool, if it lives, runs the unit *number*."""
    return any(
        b"%d" % number in read_file(os.path.join(pool, RUNNING)).split()
        for pool in [directory, *share.directories(directory)]
    )


def _line(progress: Progress) -> bytes:
    return json.dumps(progress._asdict(), separators=(",", ":")).encode("ascii") + b"\n"


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
