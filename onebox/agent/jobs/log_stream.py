"""Send a log while it grows, at once and without asking for it all the time."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from typing import Any, Callable, Dict, List, Optional

from .. import box, protocol
from ..box import Box
from ..protocol import CHUNK, Channel
from . import exit_record, log_limit, metrics, state

# What is printed within this time travels together.
GATHER = 0.003
# Without inotify: how long to sleep when there is nothing new, at the most.
LONGEST_NAP = 0.015
LOOK = 1.0
IN_MODIFY, IN_CREATE, IN_ONESHOT = 0x2, 0x100, 1 << 31
IN_NONBLOCK, IN_CLOEXEC = 0o4000, 0o2000000


def stream(channel: Channel, at: Box, job: str, log: int) -> None:
    """
    Send what *log* holds from its position on, until the job is over.

    A sample goes along about once a second, and a word where some is gone.
    """
    directory = at.path("jobs", job)
    changes = Changes(directory)
    try:
        _stream(channel, at, job, log, changes)
    finally:
        changes.close()


def listen(channel: Channel, at: Box, seconds: float, *others: int) -> None:
    """
    Wait, at the most until one of *others* can be read.

    Any byte from the client renews its lease. Raises `Closed` when it hangs up.
    """
    channel.beat()
    ready = select.select([channel.read_fd, *others], [], [], max(seconds, 0.0))[0]
    if channel.read_fd in ready:
        channel.fill()
        box.touch(at.path("lease"))


def _stream(channel: Channel, at: Box, job: str, log: int, changes: Changes) -> None:
    directory = at.path("jobs", job)
    view = memoryview(bytearray(CHUNK))
    nap, over, look_at = GATHER, False, 0.0
    told: Optional[Dict[str, Any]] = None
    while True:
        changes.forget()
        count = os.readv(log, [view])
        gone = 0
        if count:
            count, gone = log_limit.skip(directory, log, count)
        if count:
            channel.send(b"D", view[:count])
        elif over and not gone:
            return
        if gone:
            channel.send(b"G", protocol.dumps({"gone": gone}))
            continue
        now = time.monotonic()
        if now >= look_at:
            look_at = now + LOOK
            sample = metrics.latest(directory)
            if sample and sample != told:
                told = sample
                channel.send_json(b"S", sample)
            # Only the lock tells of a supervisor that was killed.
            over = state.state(at, job)[0] != "running"
        else:
            over = os.path.exists(os.path.join(directory, exit_record.NAME))
        # Whatever was written before the end was seen is read after it.
        if over or count == CHUNK:
            listen(channel, at, 0.0)
        elif count:
            nap = GATHER
            listen(channel, at, nap)
        elif changes.arm():
            # Of what was written just before that, nothing will tell.
            new = os.fstat(log).st_size > os.lseek(log, 0, os.SEEK_CUR)
            listen(channel, at, 0.0 if new else look_at - now, *changes.fds)
        else:
            listen(channel, at, nap)
            nap = min(nap * 1.2, LONGEST_NAP)


class Changes:
    """
    Has the kernel tell when the log grows or the record appears, if it can.

    Of the log it tells once each time it is asked to: telling of every write
    would slow down a job that prints much by half.
    """

    def __init__(self, directory: str) -> None:
        self.fds: List[int] = []
        self._log = os.fsencode(directory + "/log")
        if sys.platform != "linux":
            return
        # Here and not at the top: it takes long to load, and is not everywhere.
        with contextlib.suppress(ImportError, OSError, AttributeError):
            import ctypes

            libc = ctypes.CDLL(None)
            self._add: Callable[[int, bytes, int], int] = libc.inotify_add_watch
            fd = int(libc.inotify_init1(IN_NONBLOCK | IN_CLOEXEC))
            if fd >= 0:
                self.fds.append(fd)
                if self._add(fd, os.fsencode(directory), IN_CREATE) < 0:
                    self.close()

    def arm(self) -> bool:
        """Ask to be told once when the log grows; say whether that can be had."""
        if self.fds and self._add(self.fds[0], self._log, IN_MODIFY | IN_ONESHOT) < 0:
            self.close()
        return bool(self.fds)

    def forget(self) -> None:
        """Take in what has been told so far."""
        for fd in self.fds:
            with contextlib.suppress(BlockingIOError):
                os.read(fd, 1 << 16)

    def close(self) -> None:
        """Ask for nothing more."""
        for fd in self.fds:
            os.close(fd)
        self.fds.clear()
