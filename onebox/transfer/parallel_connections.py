"""
Further connections to the box, as long as each one makes a transfer faster.

Nobody knows beforehand what limits a line. So after a second one more connection
is opened beside those there are, and if the bytes then go faster, another one.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator

from onebox.errors import OneboxError
from onebox.remote.channel import AgentChannel

MOST = 4
LOOK_SECONDS = 1.0
# What another connection has to bring for the next one to be tried.
GAIN = 1.2
# Above this it is no window that limits, but processors and disks.
FAST = 100e6
# What is left must take this long, for making a connection takes a while too.
WORTH_SECONDS = 2.0

Frame = tuple[bytes, bytes]


class Stripe:
    """A connection that is ready to be a lane; *name* is what the box calls it."""

    def __init__(self, channel: AgentChannel) -> None:
        self.channel = channel
        self.name = secrets.token_hex(8).encode("ascii")
        channel.begin("lane", name=self.name.decode("ascii"))
        self.frames: Iterator[Frame] = channel.frames(beats=True)
        next(self.frames)


class Widening:
    """Watches how fast a transfer over *channel* goes, and opens lanes for it."""

    def __init__(self, channel: AgentChannel) -> None:
        self._another = channel.another
        self._open: list[Stripe] = []
        self._ready: Stripe | None = None
        self._opening: threading.Thread | None = None
        # Held to open a lane or to close them all: one that comes too late is ended.
        self._changing = threading.Lock()
        self._closed = False
        self._since = time.monotonic()
        self._count = 0
        self._best = 0.0

    def lane(self, count: int, left: int) -> Stripe | None:
        """Count bytes that have moved; return a lane when there is a new one."""
        self._count += count
        if self._opening is not None:
            if self._opening.is_alive():
                return None
            self._opening = None
            self._restart()
            if self._ready is None:
                self._another = None
                return None
            self._open.append(self._ready)
            return self._ready
        spent = time.monotonic() - self._since
        if self._another is not None and spent >= LOOK_SECONDS:
            rate = self._count / spent
            self._restart()
            slow = rate < GAIN * self._best
            if slow or rate > FAST or len(self._open) + 1 >= MOST:
                self._another = None
            elif left > rate * WORTH_SECONDS:
                self._ready = None
                self._opening = threading.Thread(target=self._work, daemon=True)
                self._opening.start()
            self._best = rate
        return None

    def close(self) -> None:
        """End the lanes: all that they were to carry has been acknowledged."""
        with self._changing:
            if self._closed:
                return
            self._closed = True
        for lane in {*self._open, *([self._ready] if self._ready else [])}:
            lane.channel.close(wait=0.0)

    def _restart(self) -> None:
        self._since = time.monotonic()
        self._count = 0

    def _work(self) -> None:
        assert self._another is not None
        try:
            channel = self._another()
        except OneboxError:
            return
        try:
            lane = Stripe(channel)
        except OneboxError:
            channel.close(wait=0.0)
            return
        with self._changing:
            if not self._closed:
                self._ready = lane
                return
        channel.close(wait=0.0)
