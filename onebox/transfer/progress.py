"""Count the files and bytes of a transfer, and report its progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from onebox.agent.files.content_stream import FileOffer

# A callback with four numbers: the files that are done, all files, the bytes that are
# done, all bytes.
Progress = Callable[[int, int, int, int], None]
INTERVAL = 0.05


class Meter:
    """
    Counts the bytes of a transfer, and calls *progress* at most 20 times a second.

    *done* is the number of finished files. Some of them needed no transfer, because the
    receiver had them already. *carried* and *carried_bytes* count only the files and
    bytes that were sent.
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
        """Add *count* bytes to those done; return whether *progress* was called."""
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
        """Return how many bytes are not done yet."""
        return self.bytes - self._moved

    def finish(self) -> None:
        """Report that all files and bytes are done."""
        self._progress(self.files, self.files, self.bytes, self.bytes)
