"""Tell the time by a cloud's own clock, and read the times that its API reports."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Callable
from datetime import datetime

# ServerClock ignores a difference of up to this many seconds: a Date header is in whole
# seconds, and the answer needs time to arrive.
CLOSE_SECONDS = 5.0


class ServerClock:
    """
    This machine's clock, corrected by the Date header of a server's latest answer.

    Args:
        clock: Returns the time of this machine (epoch seconds).
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._ahead = 0.0

    def __call__(self) -> float:
        """Return the time (epoch seconds) by the server's clock."""
        return self._clock() + self._ahead

    def correct(self, date: str | None) -> None:
        """Correct the clock by a Date header; ignore a missing or malformed header."""
        there = server_time(date)
        if there is None:
            return
        ahead = there - self._clock()
        self._ahead = ahead if abs(ahead) > CLOSE_SECONDS else 0.0


def server_time(date: str | None) -> float | None:
    """Return a Date header in epoch seconds, None if it is missing or malformed."""
    try:
        return email.utils.parsedate_to_datetime(date or "").timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


def epoch_seconds(timestamp: object) -> float:
    """
    Return an ISO 8601 time as seconds since the epoch, 0 if it is not a valid time.

    >>> epoch_seconds("1970-01-01T00:01:00.5Z"), epoch_seconds(None)
    (60.5, 0.0)
    """
    try:
        # Python before 3.11 does not accept a Z as the time zone.
        return datetime.fromisoformat(str(timestamp).replace("Z", "+00:00")).timestamp()
    except ValueError:
        return 0.0
