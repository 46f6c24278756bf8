"""
Use several connections as one.

OpenSSH has at most 2 MiB in flight per connection, however long and fast the path is.
Each further connection adds 2 MiB, and another core for the cipher. Frames are sent
round robin over the connections (stripes). Both ends add a new stripe right after the
L frame that names it, so frames need no numbers.

On the box each further connection ends in a process of its own. That process relays
its bytes to the process that runs the operation, through a Unix socket in the agent's
directory.
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

RELAY_BYTES = 1 << 18
NAME = re.compile(r"[0-9a-f]{16}")

Stripe = TypeVar("Stripe")


class Stripes(Generic[Stripe]):
    """The open connections of a transfer, used round robin."""

    def __init__(self, first: Stripe) -> None:
        self._stripes = [first]
        self._turn = 0

    def next(self) -> Stripe:
        """Return the stripe for the next frame."""
        stripe = self._stripes[self._turn]
        self._turn = (self._turn + 1) % len(self._stripes)
        return stripe

    def add(self, stripe: Stripe) -> None:
        """Add a stripe, and continue with the first one."""
        self._stripes.append(stripe)
        self._turn = 0


def join(box: Box, name: bytes) -> socket.socket:
    """Connect to the process on this box that holds a further connection."""
    with _socket_folder(box, name.decode("ascii", "replace")) as path:
        relay = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            relay.connect(path)
        except OSError as error:
            relay.close()
            raise protocol.Closed("stripe: %s" % error) from error
    return relay


def stripe(
    channel: protocol.Channel, box: Box, request: Dict[str, Any]
) -> Dict[str, Any]:
    """Offer this connection as a stripe, and relay its bytes until the end."""
    os.makedirs(box.path("files"), exist_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with contextlib.closing(listener):
        with _socket_folder(box, str(request.get("name"))) as path:
            listener.bind(path)
        try:
            listener.listen(1)
            channel.send_json(b"S", {})
            both = [listener.fileno(), channel.read_fd]
            while both[0] not in select.select(both, [], [])[0]:
                channel.fill()
            joined = listener.accept()[0]
        finally:
            with _socket_folder(box, str(request.get("name"))) as path:
                os.unlink(path)
    with contextlib.closing(joined):
        _relay(channel, joined)
    return {}


OPS: Dict[str, Callable[[protocol.Channel, Box, Dict[str, Any]], Dict[str, Any]]] = {
    "stripe": stripe,
}


def _relay(channel: protocol.Channel, joined: socket.socket) -> None:
    data = channel.rest()
    while True:
        # The other process may have finished: then nothing reads our bytes, but its
        # last bytes may still have to be sent to the client.
        with contextlib.suppress(OSError):
            joined.sendall(data)
        data = b""
        ready = select.select([joined.fileno(), channel.read_fd], [], [])[0]
        if joined.fileno() in ready:
            answer = _receive(joined)
            if not answer:
                return
            channel.write(answer)
        if channel.read_fd in ready:
            data = os.read(channel.read_fd, RELAY_BYTES)
            if not data:
                raise protocol.Closed("end of file")


def _receive(joined: socket.socket) -> bytes:
    try:
        return joined.recv(RELAY_BYTES)
    except ConnectionResetError:
        return b""


@contextlib.contextmanager
def _socket_folder(box: Box, name: str) -> Iterator[str]:
    """
    Change to the folder of the sockets, and yield the name of one.

    An absolute path may be too long: a socket's address holds about 100 bytes.
    """
    if not NAME.fullmatch(name):
        raise protocol.Refused("request", "invalid name of a stripe: %r" % name[:80])
    before = os.open(".", os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.chdir(box.path("files"))
        yield "stripe-" + name
    finally:
        os.fchdir(before)
        os.close(before)
