"""Count how the units of a job have ended, with a few bytes for each."""

from __future__ import annotations

import time
from array import array
from typing import Optional, Tuple

_LEFT, _DONE, _FAILED = 0, 1, 2


class Tally:
    """
    The counts of *total* units, each of which is done, failed or left.

    *changed* is set by every call that changes something; the caller resets it.
    """

    def __init__(self, total: int) -> None:
        self.done = self.failed = self.skipped = 0
        self.changed = True
        self._states = bytearray(total)
        self._started = array("d", bytes(8 * total))
        self._seconds = array("d", bytes(8 * total))
        self._sum = 0.0

    @property
    def left(self) -> int:
        """How many units have not ended."""
        return len(self._states) - self.done - self.failed

    @property
    def mean(self) -> Optional[float]:
        """The mean seconds of the units that were done in this job, None if none."""
        count = self.done - self.skipped
        return round(self._sum / count, 3) if count > 0 else None

    def skip(self, index: int) -> None:
        """Count a unit that was done before."""
        self.changed = True
        self.done += 1
        self.skipped += 1
        self._states[index] = _DONE
        self._started[index] = time.time()

    def end(self, index: int, done: bool, started: float, seconds: float) -> None:
        """Count a unit that has ended; *started* is in seconds since the epoch."""
        self.changed = True
        self._states[index] = _DONE if done else _FAILED
        self._started[index], self._seconds[index] = started, seconds
        if done:
            self.done += 1
            self._sum += seconds
        else:
            self.failed += 1

    def forget(self, index: int) -> None:
        """Note that a unit was stopped before its end: it is left."""
        self.changed = True
        self._states[index] = _LEFT

    def fail_after_all(self, index: int) -> None:
        """Count a done unit as failed."""
        self.changed = True
        self.done -= 1
        self.failed += 1
        self._states[index] = _FAILED

    def is_done(self, index: int) -> bool:
        """Return whether a unit is done."""
        return self._states[index] == _DONE

    def times(self, index: int) -> Tuple[float, float]:
        """Return when a unit started, and how many seconds it took."""
        return self._started[index], self._seconds[index]
