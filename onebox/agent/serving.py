"""What an op that works with files needs to talk with its client meanwhile."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import time
from typing import (
    Callable,
    Iterator,
    Tuple,
)

from . import wire
from .box import Box, touch
from .names import Hostile, show

Frame = Tuple[bytes, bytes]


@contextlib.contextmanager
def refusing() -> Iterator[None]:
    """Turn what can go wrong with files into a refusal that says so."""
    try:
        yield
    except Hostile as error:
        raise wire.Refused("hostile", str(error)) from error
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        name = error.filename
        where = show(os.fsencode(name)) if isinstance(name, (str, bytes)) else ""
        raise wire.Refused(
            "disk" if full else "files",
            "%s %s" % (error.strerror, where) if where else str(error.strerror),
        ) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise wire.Refused("request", "not understood: %r" % error) from error


def waiting(channel: wire.Channel, box: Box) -> Callable[[], Frame]:
    """Return what waits for the next frame that is more than "still here"."""

    def frames() -> Frame:
        while True:
            kind, payload = channel.receive()
            if kind != b"P":
                return kind, payload
            touch(box.path("lease"))

    return frames


class Pulse:
    """Takes in the client's "still here" during work that reads nothing."""

    def __init__(self, channel: wire.Channel, box: Box) -> None:
        self._channel = channel
        self._lease = box.path("lease")
        self._next = time.monotonic() + 1

    def __call__(self) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + 1
        while select.select([self._channel.read_fd], [], [], 0)[0]:
            self._channel.fill()
        frame = self._channel.ready()
        while frame is not None:
            if frame[0] != b"P":
                raise wire.Refused("order", "a %r frame too early" % frame[0])
            touch(self._lease)
            frame = self._channel.ready()
