"""
Every cloud decides with these rules when to repeat an API call.

The class of an attempt's error decides:

* `Throttled`: the call is repeated after a pause, until a budget of seconds is spent
* `Unanswered`: nothing changed, so the call is repeated a few times
* `Unclear`: the response was lost, so the call may have taken effect; it is repeated
  if it carries a token or a name that makes a repetition harmless
* any other class: the API refused the call; this is final, and it is not repeated
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn, TypeVar

from onebox.errors import NotAllowed, OneboxError, Throttled, Unclear
from onebox.providers.kernel.errors import RetryAfter, Unanswered

T = TypeVar("T")


def leave_unclear(error: OneboxError) -> NoReturn:
    """
    Raise *error*, which came after an attempt whose response was lost.

    Expired credentials, throttling and a broken network do not show whether the earlier
    attempt has taken effect, so they are raised as Unclear. Any other refusal is raised
    unchanged.
    """
    if isinstance(error, (NotAllowed, Throttled, Unanswered)):
        raise Unclear(error.message, next=error.next) from error
    raise error


@dataclass(frozen=True)
class Retry:
    """
    How often, and after which pauses, one API call is repeated.

    The pauses are random, so that many clients do not call again at the same moment.
    On average each pause is twice as long as the one before it. All times are in
    seconds.

    Attributes:
        attempts: How many attempts may end without a response.

        throttled_seconds: How long to wait in total while the API throttles. A pause
            that would exceed this time is not begun.

        longest_demanded: The longest pause that the server can demand; a longer one is
            shortened to it.
    """

    sleep: Callable[[float], None] = time.sleep
    attempts: int = 4
    first_pause: float = 1.0
    longest_pause: float = 20.0
    throttled_seconds: float = 300.0
    longest_demanded: float = float("inf")

    def call(
        self,
        attempt: Callable[[], T],
        *,
        repeatable: bool = True,
        after_loss: Callable[[OneboxError], T] = leave_unclear,
    ) -> T:
        """
        Return the result of *attempt*, repeated where that is safe and can help.

        Args:
            attempt: Makes the call once. Raises OneboxError, or RetryAfter.

            repeatable: Whether a second attempt is harmless if the first one has taken
                effect but its response was lost.

            after_loss: Called with the final error if the response of an earlier
                attempt was lost. Returns what that earlier attempt would have returned,
                or raises.

        Raises:
            Unclear: The response of an attempt was lost, so it may have taken effect.
        """
        tries = unanswered = 0
        lost = False
        waited = 0.0
        while True:
            try:
                return attempt()
            except RetryAfter as demand:
                error, pause = demand.error, min(demand.seconds, self.longest_demanded)
            except OneboxError as failure:
                error, pause = failure, self._pause(tries)
            tries += 1
            if isinstance(error, Throttled):
                waited += pause
                final = waited > self.throttled_seconds
            elif isinstance(error, (Unclear, Unanswered)):
                lost = lost or isinstance(error, Unclear)
                unanswered += 1
                repeat = repeatable or isinstance(error, Unanswered)
                final = unanswered >= self.attempts or not repeat
            else:
                final = True
            if final and lost and not isinstance(error, Unclear):
                return after_loss(error)
            if final:
                raise error
            self.sleep(pause)

    def _pause(self, tries: int) -> float:
        longest = min(self.longest_pause, self.first_pause * 2.0**tries)
        return longest * random.uniform(0.25, 1)  # noqa: S311 - no secret
