"""Repeat a question or an action until it succeeds or the time is up."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from onebox.errors import ProviderError, Unclear

T = TypeVar("T")


@dataclass(frozen=True)
class Poller:
    """
    Repeat a question until it has an answer or a deadline has passed.

    Attributes:
        sleep: Pauses for a number of seconds.

        clock: Returns the time in seconds. None means that the sum of the pauses counts
            as the time, for callers whose *sleep* is faster than a real one.

        first: The first pause, in seconds; each further one is 1.5 times as long.

        longest: The longest pause, in seconds.
    """

    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] | None = time.monotonic
    first: float = 1.0
    longest: float = 5.0

    def until(self, look: Callable[[], T | None], seconds: float) -> T | None:
        """
        Return the first true result of *look*, None if there is none in *seconds*.

        The last look begins after *seconds*, so no earlier event is missed.
        """
        began = self.clock() if self.clock else 0.0
        pause, paused = self.first, 0.0
        while True:
            elapsed = self.clock() - began if self.clock else paused
            found = look()
            if found or elapsed >= seconds:
                return found or None
            self.sleep(pause)
            paused += pause
            pause = min(pause * 1.5, self.longest)

    def require(self, look: Callable[[], T | None], seconds: float, what: str) -> T:
        """
        Return the first true result of *look*.

        Args:
            what: The activity, for the error message, as in "stopping ob-1".

        Raises:
            Unclear: There was no true result in *seconds*.
        """
        found = self.until(look, seconds)
        if found is None:
            raise Unclear(
                f"{what} has taken longer than {seconds:.0f} s", next="inv status"
            )
        return found

    def until_free(
        self,
        act: Callable[[], T],
        seconds: float,
        is_busy: Callable[[ProviderError], bool],
    ) -> T:
        """
        Call *act*, repeat it while its object is busy, and return the result.

        Args:
            is_busy: Returns whether an error only means that the object is still busy.

        Raises:
            ProviderError: The object is still busy after *seconds*, or *act* raised an
                error that does not mean "busy".
        """
        busy: list[ProviderError] = []

        def attempt() -> list[T] | None:
            try:
                return [act()]
            except ProviderError as error:
                if not is_busy(error):
                    raise
                busy.append(error)
                return None

        results = self.until(attempt, seconds)
        if results is None:
            raise busy[-1]
        return results[0]
