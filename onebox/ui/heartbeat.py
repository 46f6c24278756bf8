"""
Print from time to time that something still runs, where no live line shows it.

A log of a CI service, for example, would look dead during a long build that prints
nothing. The lines become rarer, so that a long job does not fill the log with them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# Seconds without any other line: before the first line, and at most between two.
FIRST, MOST = 30.0, 300.0


class Heartbeat:
    """
    Decides when a line is due.

    Args:
        say: Prints a line.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self.reset()

    def reset(self) -> None:
        """Begin again, because something else has been printed."""
        self._since, self._wait = time.monotonic(), FIRST

    def beat(self, text: str) -> None:
        """Print *text* if nothing has been printed for long enough."""
        if time.monotonic() - self._since < self._wait:
            return
        wait = min(2 * self._wait, MOST)
        self._say(text)
        self._since, self._wait = time.monotonic(), wait

    @contextmanager
    def beating(self, text: Callable[[], str]) -> Iterator[None]:
        """Print what *text* returns, when it is due, while the body runs."""
        ended = threading.Event()

        def run() -> None:
            while not ended.wait(self._wait):
                self.beat(text())

        self.reset()
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
