"""
Raise Ctrl-C, TERM and HUP as one exception, but not inside a critical section.

Invoke installs no signal handlers. Without this module, TERM would end the process
without running any `finally`, and a Ctrl-C during a subprocess would not lead to exit
code 130.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

# Signals within this time after the first one count as the same one: a closed terminal
# sends HUP and TERM, and a wrapper forwards a Ctrl-C that the terminal has also sent to
# us.
ONE_PRESS_SECONDS = 0.2
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """A signal asks this process to stop; *code* is 128 + the signal's number."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number
        self.code = 128 + number


class _Watch:
    """The signals that have arrived, and whether they are delayed at the moment."""

    count = 0
    first = 0.0
    depth = 0
    waiting: int | None = None
    last_words: Callable[[], str] | None = None
    exits = True


@contextlib.contextmanager
def signals_as_exceptions(
    last_words: Callable[[], str], *, exits: bool = True
) -> Iterator[None]:
    """
    Raise `Interrupted` at the first signal; exit at once at the second.

    After `Interrupted` has left the outermost block, all signals are ignored while
    Python exits, because they would change the exit code.

    Args:
        last_words: Returns the line to print at the second signal: which box is left,
            its price and its deadline.

        exits: Whether the process ends with `Interrupted`. It is False for the process
            of a user, such as a notebook: each signal then raises `Interrupted`.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    outer, _Watch.last_words = _Watch.last_words, last_words
    outer_exits, _Watch.exits = _Watch.exits, exits
    if outer is None:
        _Watch.count = 0
    for number in SIGNALS:
        # Under `nohup`, HUP is ignored and must stay ignored.
        if before[number] is not signal.SIG_IGN or number != signal.SIGHUP:
            signal.signal(number, _arrive)
    try:
        yield
    except Interrupted:
        if outer is None and exits:
            atexit.register(_ignore_signals)
        raise
    finally:
        _Watch.last_words, _Watch.exits = outer, outer_exits
        for number, handler in before.items():
            # None means that C code had installed the handler. It cannot be restored.
            if handler is not None:
                signal.signal(number, handler)


def within_chain() -> bool:
    """Return whether the code that calls this is part of an outer chain of `inv`."""
    return _Watch.last_words is not None


def _ignore_signals() -> None:
    # Otherwise Python would restore the default handlers while it exits, and a signal
    # would then kill the process.
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def signals_delayed() -> Iterator[None]:
    """Delay `Interrupted` until the body has ended; a second signal still exits."""
    if threading.current_thread() is not threading.main_thread():
        # Python delivers signals to the main thread only, so in this thread there is
        # nothing to delay.
        yield
        return
    _Watch.depth += 1
    try:
        yield
    finally:
        _Watch.depth -= 1
        if not _Watch.depth and _Watch.waiting is not None:
            number, _Watch.waiting = _Watch.waiting, None
            raise Interrupted(number)


def _arrive(number: int, frame: FrameType | None) -> None:
    now = time.monotonic()
    if _Watch.count and now - _Watch.first < ONE_PRESS_SECONDS:
        return
    _Watch.first = now
    _Watch.count += 1
    if _Watch.count > 1 and _Watch.exits:
        try:
            words = _Watch.last_words() if _Watch.last_words else ""
            # If stderr is closed, descriptor 2 may belong to any other file.
            if sys.stderr is not None:
                text = f"\nonebox: {words}\n" if words else "\n"
                os.write(2, text.encode("utf-8", "replace"))
        finally:
            # The process must exit even if printing fails.
            os._exit(128 + number)
    if _Watch.depth:
        _Watch.waiting = number
        return
    raise Interrupted(number)
