"""
Ctrl-C, TERM and HUP as one exception, at moments when it can do no harm.

Invoke installs no handlers of its own: a TERM would end the process without
any `finally`, and a Ctrl-C inside a subprocess is not an exit code of 130.
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

# A closed terminal sends HUP and TERM, a wrapper passes on the Ctrl-C that we got
# as well: what comes this close together is one wish, not two.
ONE_PRESS_SECONDS = 0.2
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """The user, or the system, wants us to stop; *code* is 128 + the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number
        self.code = 128 + number


class _Watch:
    """Which signals have come, and whether one may be raised right now."""

    count = 0
    first = 0.0
    depth = 0
    waiting: int | None = None
    last_words: Callable[[], str] | None = None


@contextlib.contextmanager
def caught(last_words: Callable[[], str]) -> Iterator[None]:
    """
    Raise `Interrupted` at the first signal; end the process at the second.

    One that comes when the process is already ending is not heeded: it would
    change the exit code.

    Args:
        last_words: Gives the one line that the second Ctrl-C prints: which box
            is left, what it costs and when it stops by itself.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    outer, _Watch.last_words = _Watch.last_words, last_words
    if outer is None:
        _Watch.count = 0
    for number in SIGNALS:
        # `nohup inv run` asked for HUP to be ignored: it stays so.
        if before[number] is not signal.SIG_IGN or number != signal.SIGHUP:
            signal.signal(number, _arrive)
    try:
        yield
    except Interrupted:
        if outer is None:
            atexit.register(_heed_no_more)
        raise
    finally:
        _Watch.last_words = outer
        for number, handler in before.items():
            # None: it was not Python that had set it.
            if handler is not None:
                signal.signal(number, handler)


def _heed_no_more() -> None:
    # Python's own last act but one is to have signals kill it.
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Keep a signal back until the body, a few milliseconds, has ended."""
    if threading.current_thread() is not threading.main_thread():
        # Signals are the main thread's: it must not wait for this one.
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
    if _Watch.count > 1:
        try:
            words = _Watch.last_words() if _Watch.last_words else ""
            # Without a stderr, 2 may be any file of ours.
            if sys.stderr is not None:
                text = f"\nonebox: {words}\n" if words else "\n"
                os.write(2, text.encode("utf-8", "replace"))
        finally:
            # At once means whatever else fails.
            os._exit(128 + number)
    if _Watch.depth:
        _Watch.waiting = number
        return
    raise Interrupted(number)
