"""
When to repeat an API call, for every cloud.

The class of an attempt's error decides:

* refused (any other class): the answer is final; never repeated
* `Throttled`: repeated after a pause, until a budget of seconds is spent
* `Unanswered`: nothing changed, so the call is repeated a few times
* `Unclear`: the response was lost, so the call may have taken effect; repeated if it
  carries a token or a name that makes a repetition harmless
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
    Raise the error of a call that failed after an attempt without a response.

    Expired credentials, throttling and a broken network do not show whether the earlier
    attempt has taken effect. Any other refusal is final.
    """
    if isinstance(error, (NotAllowed, Throttled, Unanswered)):
        raise Unclear(error.message, next=error.next) from error
    raise error


@dataclass(frozen=True)
class Retry:
    """
    How often, and after which pauses, one API call is repeated.

    The pauses are random, so that many clients do not come back at the same moment,
    and twice as long on average each time. All times are in seconds.

    Attributes:
        attempts: How many attempts may end without a response.

        throttled_seconds: How long to wait in total while the API throttles. A pause
            that would exceed it is not begun.

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

            repeatable: A second attempt after a lost response changes nothing.

            after_loss: Called with the error that follows a lost response. Returns
                the result of the lost call, or raises.

        Raises:
            Unclear: No attempt had a response, and one may have taken effect.
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
