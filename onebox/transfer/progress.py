"""The progress of a transfer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from onebox.agent.files.content_stream import FileOffer

# Called with the files and the bytes that are there, each followed by the total:
# files, all files, bytes, all bytes.
Progress = Callable[[int, int, int, int], None]
INTERVAL = 0.05


class Meter:
    """
    Counts the bytes of a transfer, and calls *progress* about 20 times a second.

    *done* is the number of finished files. *carried* and *carried_bytes* count what was
    really sent.
    """

    def __init__(
        self,
        progress: Progress,
        offers: Sequence[FileOffer] = (),
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._progress = progress
        self._now = now
        self._next = 0.0
        self._moved = 0
        self.files = len(offers)
        self.bytes = sum(offer.entry.size for offer in offers)
        self.done = self.carried = self.carried_bytes = 0

    def moved(self, count: int) -> bool:
        """Count bytes that are there now; return whether *progress* was called."""
        self._moved += count
        now = self._now()
        if now < self._next:
            return False
        self._next = now + INTERVAL
        moved = min(self._moved, self.bytes)
        self._progress(self.done, self.files, moved, self.bytes)
        return True

    @property
    def left(self) -> int:
        """Return how many bytes are missing."""
        return self.bytes - self._moved

    def finish(self) -> None:
        """Report that everything is there."""
        self._progress(self.files, self.files, self.bytes, self.bytes)
