"""
Open further connections to the box, as long as each makes the transfer faster.

It is not known in advance whether further connections make a transfer faster. So a
second connection is opened after one second, and another one each time that the last
one has made the transfer faster.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator

from onebox.agent.files.striping import Frame
from onebox.errors import OneboxError
from onebox.remote.channel import AgentChannel

# A transfer uses at most this many connections, including the first one.
MOST = 4
MEASURE_SECONDS = 1.0
# Another connection is tried only if the last one has made the transfer this many times
# as fast.
GAIN = 1.2
# Above this rate (bytes per second) no connection is added, because processors and
# disks are the limit there, and not ssh's window.
FAST = 100e6
# A new connection takes time to open. It is opened only if the remaining transfer takes
# at least this long.
WORTH_SECONDS = 2.0


class ExtraConnection:
    """A further connection, ready to carry frames; *name* identifies it to the box."""

    def __init__(self, channel: AgentChannel) -> None:
        self.channel = channel
        self.name = secrets.token_hex(8).encode("ascii")
        channel.begin("stripe", name=self.name.decode("ascii"))
        self.frames: Iterator[Frame] = channel.frames(beats=True)
        next(self.frames)


class ParallelConnections:
    """Measures a transfer over *channel*, and opens further connections for it."""

    def __init__(self, channel: AgentChannel) -> None:
        self._open_another = channel.open_another
        self._open: list[ExtraConnection] = []
        self._ready: ExtraConnection | None = None
        self._opening: threading.Thread | None = None
        # The lock protects _closed and _ready, so that a connection that opens after
        # `close` was called is closed, too.
        self._lock = threading.Lock()
        self._closed = False
        self._since = time.monotonic()
        self._count = 0
        self._best = 0.0

    def count(self, moved: int, left: int) -> ExtraConnection | None:
        """
        Count transferred bytes; return a new connection if one has become ready.

        Args:
            moved: How many bytes were transferred since the last call.

            left: How many bytes are still to be transferred.
        """
        self._count += moved
        if self._opening is not None:
            if self._opening.is_alive():
                return None
            self._opening = None
            self._restart()
            if self._ready is None:
                self._open_another = None
                return None
            self._open.append(self._ready)
            return self._ready
        spent = time.monotonic() - self._since
        if self._open_another is not None and spent >= MEASURE_SECONDS:
            rate = self._count / spent
            self._restart()
            no_gain = rate < GAIN * self._best
            if no_gain or rate > FAST or len(self._open) + 1 >= MOST:
                self._open_another = None
            elif left > rate * WORTH_SECONDS:
                self._ready = None
                self._opening = threading.Thread(target=self._open_one, daemon=True)
                self._opening.start()
            self._best = rate
        return None

    def close(self) -> None:
        """Close the further connections without waiting for their last frames."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        for extra in {*self._open, *([self._ready] if self._ready else [])}:
            extra.channel.close(wait=0.0)

    def _restart(self) -> None:
        self._since = time.monotonic()
        self._count = 0

    def _open_one(self) -> None:
        assert self._open_another is not None
        try:
            channel = self._open_another()
        except OneboxError:
            return
        try:
            extra = ExtraConnection(channel)
        except OneboxError:
            channel.close(wait=0.0)
            return
        with self._lock:
            if not self._closed:
                self._ready = extra
                return
        channel.close(wait=0.0)
