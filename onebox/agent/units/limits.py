"""What limits the pool of a job: the sizes of logs, the disk, and memory."""

from __future__ import annotations

import contextlib
import json
import os

from ..box import disk_space, read
from ..jobs.supervisor import FULL

# A unit is killed before the pool when memory runs out.
OOM_MORE = 100
SMALLEST_LOG = 1 << 20


class Disk:
    """The disk of the work directory, of which the supervisor may release a part."""

    def __init__(self, directory: str, work: str) -> None:
        self._ballast = os.path.join(directory, "ballast")
        self._work = work
        self._size = self._ballast_size()

    def is_full(self) -> bool:
        """Return whether a full disk is the likely reason for a unit's failure."""
        free, total = disk_space(self._work)
        # The supervisor deletes its ballast when the disk is full.
        released = self._size - self._ballast_size()
        return total > 0 and free < max(FULL, total // 1000) + released

    def _ballast_size(self) -> int:
        try:
            return os.stat(self._ballast).st_size
        except OSError:
            return 0


def log_limit(directory: str) -> int:
    """
    Return the most bytes of a unit's log, a fourth of that of the job; 0: no limit.

    *directory* is that of the job.
    """
    try:
        limit = int(json.loads(read(os.path.join(directory, "spec.json")))["max_log"])
    except (ValueError, KeyError, TypeError):
        return 0
    return max(limit // 4, SMALLEST_LOG) if limit else 0


def oom_score() -> int:
    """Return how early the kernel kills a unit when memory runs out."""
    own = 0
    with contextlib.suppress(ValueError):
        own = int(read("/proc/self/oom_score_adj") or b"0")
    return min(own + OOM_MORE, 1000)
