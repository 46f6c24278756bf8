"""The frames of a file operation, over one or more connections to the client."""

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
    """Turn errors of file operations into a refusal that names the reason."""
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
        raise protocol.Refused("request", "invalid request: %r" % error) from error


class _Connections:
    """The connections of an operation: the client's channel and joined stripes."""

    def __init__(self, channel: protocol.Channel, box: Box) -> None:
        self.box = box
        self.stripes = Stripes(channel)
        self._joined: List[socket.socket] = []

    def join(self, name: bytes) -> protocol.Channel:
        """Connect to a further stripe; the caller adds it."""
        self._joined.append(join(self.box, name))
        fd = self._joined[-1].fileno()
        return protocol.Channel(fd, fd)

    def close(self) -> None:
        """Close the joined stripes."""
        for joined in self._joined:
            joined.close()


class Incoming(_Connections):
    """Reads the frames that the client sends, from all stripes."""

    def __call__(self) -> Frame:
        """Return the next frame other than "still here" and new stripes."""
        while True:
            stripe = self.stripes.next()
            kind, payload = stripe.receive()
            while kind == b"P":
                touch(self.box.path("lease"))
                kind, payload = stripe.receive()
            if kind != b"L":
                return kind, payload
            self.stripes.add(self.join(payload))


class Outgoing(_Connections):
    """
    Sends frames to the client, over all stripes.

    Call *alive* often: it reads what the client sends meanwhile, which is "still here"
    and the names of new stripes.
    """

    def __init__(self, channel: protocol.Channel, box: Box) -> None:
        super().__init__(channel, box)
        self._sent_at = time.monotonic()
        self.alive = Pulse(channel, box, self._add, self._beat)

    def send(self, kind: bytes, payload: bytes = b"") -> None:
        """Send a frame on the next stripe."""
        self._sent_at = time.monotonic()
        self.stripes.next().send(kind, payload)

    def _beat(self) -> None:
        if time.monotonic() - self._sent_at > protocol.BEAT_SECONDS:
            self.send(b"P")

    def _add(self, name: bytes) -> None:
        stripe = self.join(name)
        self.send(b"L", name)
        self.stripes.add(stripe)


class Pulse:
    """
    Keeps the connection alive during long work; call it often.

    It reads "still here" from the client, which renews the lease, and sends "still at
    work".

    Args:
        add_stripe: Is called with the name of a new stripe.

        beat: Sends "still at work"; by default the channel does.
    """

    def __init__(
        self,
        channel: protocol.Channel,
        box: Box,
        add_stripe: Optional[Callable[[bytes], None]] = None,
        beat: Optional[Callable[[], None]] = None,
    ) -> None:
        self._channel = channel
        self._lease = box.path("lease")
        self._add_stripe = add_stripe
        self._beat = beat or channel.beat
        self._next = time.monotonic() + PULSE_SECONDS

    def __call__(self) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + PULSE_SECONDS
        self._beat()
        channel = self._channel
        while channel.peek() in b"PL" and self._has_frame():
            kind, payload = channel.receive()
            if kind == b"P":
                touch(self._lease)
            elif self._add_stripe is not None:
                self._add_stripe(payload)
            else:
                raise protocol.Refused("order", "a stripe outside of a transfer")

    def _has_frame(self) -> bool:
        """Return whether the next frame is for us; read without waiting."""
        channel = self._channel
        if not channel.peek():
            if not select.select([channel.read_fd], [], [], 0)[0]:
                return False
            channel.fill()
        return channel.peek() in (b"P", b"L")
