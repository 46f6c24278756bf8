"""Send a job's log to the client while it grows, without polling where possible."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from typing import Any, Callable, Dict, List, Optional

from .. import protocol
from ..box import BoxConfig, touch
from ..protocol import CHUNK, Channel
from ..units import progress as unit_progress
from . import engine, exit_record, job_state, log_limit, metrics

# Output that is printed within this many seconds is sent together.
GATHER = 0.003
# Without inotify, a quiet log is checked at least once in this many seconds.
LONGEST_NAP = 0.015
# A sample is sent, and the supervisor's life is checked, once in this many seconds.
CHECK = 1.0
IN_MODIFY, IN_CREATE, IN_ONESHOT = 0x2, 0x100, 1 << 31
IN_NONBLOCK, IN_CLOEXEC = 0o4000, 0o2000000


def stream(
    channel: Channel, box: BoxConfig, job: str, log: int, until: Optional[int] = None
) -> None:
    """
    Send *log* from its current position on, until the job has ended.

    With *until*, send only the log up to about this offset, and do not wait. Also send
    a sample of the box's load about once a second, with the progress of the job's
    units, and a "G" frame for each missing range of the log.
    """
    directory = box.path("jobs", job)
    notifications = LogNotifications(directory)
    try:
        _stream(channel, box, job, log, notifications, until)
    finally:
        notifications.close()


def listen(channel: Channel, box: BoxConfig, seconds: float, *others: int) -> None:
    """
    Wait for at most *seconds*, or until one of the descriptors *others* is readable.

    Data from the client renews the lease. Raises `Closed` if the client disconnects.
    """
    channel.beat()
    ready = select.select([channel.read_fd, *others], [], [], max(seconds, 0.0))[0]
    if channel.read_fd in ready:
        channel.fill()
        touch(box.path("lease"))


def _stream(
    channel: Channel,
    box: BoxConfig,
    job: str,
    log: int,
    notifications: LogNotifications,
    until: Optional[int],
) -> None:
    directory = box.path("jobs", job)
    view = memoryview(bytearray(CHUNK))
    nap, over, check_at = GATHER, False, 0.0
    sent: Optional[Dict[str, Any]] = None
    while True:
        notifications.clear()
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
        if until is not None and os.lseek(log, 0, os.SEEK_CUR) >= until:
            return
        now = time.monotonic()
        if now >= check_at:
            check_at = now + CHECK
            sample = metrics.latest(directory)
            waiting = _waiting(box, job)
            units = unit_progress.read(directory)
            if sample or waiting or (units and box.scheduler):
                report = dict(sample._asdict() if sample else {}, waiting=waiting)
                report["units"] = units
                if report != sent:
                    sent = report
                    channel.send_json(b"S", report)
            # A supervisor that was killed leaves no exit record. In this case only its
            # lock, which is free then, shows that the job is over.
            over = job_state.read(box, job).state != "running"
        else:
            over = os.path.exists(os.path.join(directory, exit_record.NAME))
        # After `over` is set, the loop reads without waiting until nothing is left.
        if over or count == CHUNK:
            listen(channel, box, 0.0)
        elif count:
            nap = GATHER
            listen(channel, box, nap)
        elif notifications.arm():
            # inotify does not report a write that was made before `arm` was called.
            # Such a write shows in the size of the log.
            new = os.fstat(log).st_size > os.lseek(log, 0, os.SEEK_CUR)
            listen(channel, box, 0.0 if new else check_at - now, *notifications.fds)
        else:
            listen(channel, box, nap)
            nap = min(nap * 1.2, LONGEST_NAP)


def _waiting(box: BoxConfig, job: str) -> str:
    """Return why a scheduler has not started the job yet, "" if it has started."""
    elsewhere = engine.of(box)
    return "" if elsewhere is None else elsewhere.waiting(box, job)


class LogNotifications:
    """
    Uses inotify to wait for writes to a log and for new files in its directory.

    *fds* is empty where inotify is unavailable. Each call of `arm` requests only one
    notification, because a notification of every write would halve the speed of a job
    that prints much.
    """

    def __init__(self, directory: str) -> None:
        self.fds: List[int] = []
        self._log = os.fsencode(directory + "/log")
        if sys.platform != "linux":
            return
        # ctypes is imported here, because it takes long to load and is missing on
        # some systems.
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
        """
        Request a notification of the log's next write; return whether that succeeded.
        """
        if self.fds and self._add(self.fds[0], self._log, IN_MODIFY | IN_ONESHOT) < 0:
            self.close()
        return bool(self.fds)

    def clear(self) -> None:
        """Read and drop the pending notifications."""
        for fd in self.fds:
            with contextlib.suppress(BlockingIOError):
                os.read(fd, 1 << 16)

    def close(self) -> None:
        """Stop all notifications."""
        for fd in self.fds:
            os.close(fd)
        self.fds.clear()
