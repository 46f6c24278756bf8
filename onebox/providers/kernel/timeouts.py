"""Define the time limits of a cloud whose library has none."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from onebox.providers.kernel.retry import Retry
from onebox.providers.kernel.wait import Poller


@dataclass(frozen=True)
class Timeouts:
    """
    How long to wait, in seconds, and how often to try.

    Three limits are for one request: *connect* for the connection, *read* for a time
    without data, *request* for all of it. A request that may be repeated is tried
    *attempts* times. The first pause is *first_pause*, and each later one is twice as
    long on average. While the API throttles, the pauses last *throttled* at most in
    total. A create call is tried *create_attempts* times if the API reports a failure
    of its own.

    *consistency_lag* is how long the API's lists may lag behind. *poll_interval* is the
    time between two polls. *shutdown* is how long a machine may take to shut down
    before its power is cut. *action* limits the wait for a stop or a start, *image* the
    wait for an image or its copy, and *deletion* the wait for a deletion. Prices are
    requested again after *price_cache*.
    """

    connect: float = 10.0
    read: float = 30.0
    request: float = 120.0
    attempts: int = 5
    first_pause: float = 0.5
    throttled: float = 180.0
    create_attempts: int = 4
    consistency_lag: float = 60.0
    poll_interval: float = 3.0
    shutdown: float = 60.0
    action: float = 600.0
    image: float = 3600.0
    deletion: float = 240.0
    price_cache: float = 300.0

    def poller(self, sleep: Callable[[float], None] = time.sleep) -> Poller:
        """
        Return a loop that waits for a change of state, and polls every *poll_interval*.
        """
        return Poller(sleep, first=self.poll_interval, longest=self.poll_interval)

    def retry(
        self,
        sleep: Callable[[float], None] = time.sleep,
        longest_demanded: float = float("inf"),
    ) -> Retry:
        """Return a loop that repeats a call within these limits."""
        return Retry(
            sleep,
            attempts=self.attempts,
            first_pause=self.first_pause,
            throttled_seconds=self.throttled,
            longest_demanded=longest_demanded,
        )
