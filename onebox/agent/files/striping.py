"""
Several connections used as one.

ssh lets 2 MiB be on the way in a connection, however long and fat the line is;
a further connection has another 2 MiB, and a cipher on another core. Frames go
round: each one on the next lane. Both ends begin to use a new lane right after
the L frame that names it, so nothing has to be numbered or put in order.

On the box a lane ends in a process of its own, which hands its bytes on to the
process that has the conversation, through a socket in the agent's directory.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import socket
from typing import Any, Callable, Dict, Generic, Iterator, TypeVar

from .. import protocol
from ..box import Box

PIECE = 1 << 18
NAME = re.compile(r"[0-9a-f]{16}")

Stripe = TypeVar("Stripe")


class Stripes(Generic[Stripe]):
    """The lanes there are, by turns."""

    def __init__(self, first: Stripe) -> None:
        self._lanes = [first]
        self._turn = 0

    def __len__(self) -> int:
        return len(self._lanes)

    def next(self) -> Stripe:
        """Return the lane whose turn it is."""
        lane = self._lanes[self._turn]
        self._turn = (self._turn + 1) % len(self._lanes)
        return lane

    def add(self, lane: Stripe) -> None:
        """Use one more from now on; the first one is next."""
        self._lanes.append(lane)
        self._turn = 0


def join(box: Box, name: bytes) -> socket.socket:
    """Return the near end of the lane that another process of the box holds."""
    with _at(box, name.decode("ascii", "replace")) as path:
        lane = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            lane.connect(path)
        except OSError as error:
            lane.close()
            raise protocol.Closed("lane: %s" % error) from error
    return lane


def lane(
    channel: protocol.Channel, box: Box, request: Dict[str, Any]
) -> Dict[str, Any]:
    """Be a lane: say so, wait to be joined, and hand on bytes until the end."""
    os.makedirs(box.path("files"), exist_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with contextlib.closing(listener):
        with _at(box, str(request.get("name"))) as path:
            listener.bind(path)
        try:
            listener.listen(1)
            channel.send_json(b"S", {})
            both = [listener.fileno(), channel.read_fd]
            while both[0] not in select.select(both, [], [])[0]:
                channel.fill()
            joined = listener.accept()[0]
        finally:
            with _at(box, str(request.get("name"))) as path:
                os.unlink(path)
    with contextlib.closing(joined):
        _hand_on(channel, joined)
    return {}


OPS: Dict[str, Callable[[protocol.Channel, Box, Dict[str, Any]], Dict[str, Any]]] = {
    "lane": lane,
}


def _hand_on(channel: protocol.Channel, joined: socket.socket) -> None:
    data = channel.rest()
    while True:
        # Who has sent all and gone does not hear us any more; but what it has
        # sent may still have to go out.
        with contextlib.suppress(OSError):
            joined.sendall(data)
        data = b""
        ready = select.select([joined.fileno(), channel.read_fd], [], [])[0]
        if joined.fileno() in ready:
            coming = _receive(joined)
            if not coming:
                return
            channel.write(coming)
        if channel.read_fd in ready:
            data = os.read(channel.read_fd, PIECE)
            if not data:
                raise protocol.Closed("end of file")


def _receive(joined: socket.socket) -> bytes:
    try:
        return joined.recv(PIECE)
    except ConnectionResetError:
        return b""


@contextlib.contextmanager
def _at(box: Box, name: str) -> Iterator[str]:
    """Go where the sockets are: a path of more than 100 bytes can name none."""
    if not NAME.fullmatch(name):
        raise protocol.Refused("request", "no name for a lane: %r" % name[:80])
    before = os.open(".", os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.chdir(box.path("files"))
        yield "lane-" + name
    finally:
        os.fchdir(before)
        os.close(before)
