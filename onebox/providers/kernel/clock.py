"""The time by a cloud's own clock, as the answers of its API give it."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Callable

# The date of an answer is in whole seconds, and the answer takes its time.
CLOSE_SECONDS = 5.0


class ServerClock:
    """
    This machine's clock, corrected by the date of a server's latest answer.

    Args:
        clock: Returns the time here (epoch seconds).
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._ahead = 0.0

    def __call__(self) -> float:
        """Return the time (epoch seconds) by the server's clock."""
        return self._clock() + self._ahead

    def heard(self, date: str | None) -> None:
        """Correct the clock by an answer's Date; one that is malformed is ignored."""
        try:
            there = email.utils.parsedate_to_datetime(date or "").timestamp()
        except (TypeError, ValueError, OverflowError):
            return
        ahead = there - self._clock()
        self._ahead = ahead if abs(ahead) > CLOSE_SECONDS else 0.0
