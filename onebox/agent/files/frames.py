"""What an op that works with files needs to talk with its client meanwhile."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import time
from typing import (
    Callable,
    Iterator,
    List,
    Optional,
    Tuple,
)

from .. import protocol
from ..box import Box, touch
from ..file_names import Hostile, brief
from .striping import Stripes, join

PULSE_SECONDS = 0.2
Frame = Tuple[bytes, bytes]


@contextlib.contextmanager
def refusing() -> Iterator[None]:
    """Turn what can go wrong with files into a refusal that says so."""
    try:
        yield
    except Hostile as error:
        raise protocol.Refused("hostile", str(error)) from error
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        name = error.filename
        where = brief(os.fsencode(name)) if isinstance(name, (str, bytes)) else ""
        raise protocol.Refused(
            "disk" if full else "files",
            "%s %s" % (error.strerror, where) if where else str(error.strerror),
        ) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise protocol.Refused("request", "not understood: %r" % error) from error


class Incoming:
    """What waits for the next frame that is more than "still here"."""

    def __init__(self, channel: protocol.Channel, box: Box) -> None:
        self._box = box
        self._lanes = Stripes(channel)
        self._joined: List[socket.socket] = []

    def __call__(self) -> Frame:
        """Return the next frame, from the lane whose turn it is."""
        while True:
            lane = self._lanes.next()
            kind, payload = lane.receive()
            while kind == b"P":
                touch(self._box.path("lease"))
                kind, payload = lane.receive()
            if kind != b"L":
                return kind, payload
            self._joined.append(join(self._box, payload))
            fd = self._joined[-1].fileno()
            self._lanes.add(protocol.Channel(fd, fd))

    def close(self) -> None:
        """Let go of the lanes."""
        for joined in self._joined:
            joined.close()


class Outgoing:
    """
    Sends the frames of a stream, and takes in what comes from the client meanwhile.

    That is "still here", and names of further lanes to use.
    """

    def __init__(self, channel: protocol.Channel, box: Box) -> None:
        self._box = box
        self._lanes = Stripes(channel)
        self._joined: List[socket.socket] = []
        self._sent_at = time.monotonic()
        self.alive = Pulse(channel, box, self._add, self._beat)

    def send(self, kind: bytes, payload: bytes = b"") -> None:
        """Send a frame on the lane whose turn it is."""
        self._sent_at = time.monotonic()
        self._lanes.next().send(kind, payload)

    def close(self) -> None:
        """Let go of the lanes."""
        for joined in self._joined:
            joined.close()

    def _beat(self) -> None:
        if time.monotonic() - self._sent_at > protocol.BEAT_SECONDS:
            self.send(b"P")

    def _add(self, name: bytes) -> None:
        self._joined.append(join(self._box, name))
        self.send(b"L", name)
        fd = self._joined[-1].fileno()
        self._lanes.add(protocol.Channel(fd, fd))


class Pulse:
    """
    Exchanges "still here" and "still at work" during work that does nothing else.

    *lane* takes the name of a further lane, *beat* sends "still at work".
    """

    def __init__(
        self,
        channel: protocol.Channel,
        box: Box,
        lane: Optional[Callable[[bytes], None]] = None,
        beat: Optional[Callable[[], None]] = None,
    ) -> None:
        self._channel = channel
        self._lease = box.path("lease")
        self._lane = lane
        self._beat = beat or channel.beat
        self._next = time.monotonic() + PULSE_SECONDS

    def __call__(self) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + PULSE_SECONDS
        self._beat()
        channel = self._channel
        while channel.peek() in b"PL" and self._more():
            kind, payload = channel.receive()
            if kind == b"P":
                touch(self._lease)
            elif self._lane is not None:
                self._lane(payload)
            else:
                raise protocol.Refused("order", "a lane for no transfer")

    def _more(self) -> bool:
        """Read what there is, up to a frame that is for whoever reads next."""
        channel = self._channel
        if not channel.peek():
            if not select.select([channel.read_fd], [], [], 0)[0]:
                return False
            channel.fill()
        return channel.peek() in (b"P", b"L")
