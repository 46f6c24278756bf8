"""
Use several connections as one, for a faster transfer.

OpenSSH has at most 2 MiB in flight per connection, however long and fast the path is.
Each further connection adds 2 MiB, and uses another core for the cipher. Frames are
sent round robin over the connections (stripes). Client and agent add a new stripe right
after the L frame that names it, so frames need no numbers.

On the box a separate process serves each further connection. It relays the bytes of the
connection to the process that runs the operation, through a Unix socket in the agent's
directory.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import time
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Dict,
    Generic,
    Iterator,
    List,
    Optional,
    Tuple,
    TypeVar,
)

from .. import protocol
from ..box import BoxConfig, touch

if TYPE_CHECKING:
    import socket

RELAY_BYTES = 1 << 18
NAME = re.compile(r"[0-9a-f]{16}")
PULSE_SECONDS = 0.2

Frame = Tuple[bytes, bytes]
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
        """Add a stripe; the next frame uses the first stripe again."""
        self._stripes.append(stripe)
        self._turn = 0


class _Connections:
    """The connections of an operation: the client's channel and the joined stripes."""

    def __init__(self, channel: protocol.Channel, box: BoxConfig) -> None:
        self.box = box
        self.stripes = Stripes(channel)
        self._joined: List[socket.socket] = []

    def join(self, name: bytes) -> protocol.Channel:
        """Return a channel to the stripe *name*; the caller adds it to `stripes`."""
        self._joined.append(_join(self.box, name))
        fd = self._joined[-1].fileno()
        return protocol.Channel(fd, fd)

    def close(self) -> None:
        """Close the joined stripes."""
        for joined in self._joined:
            joined.close()


class Incoming(_Connections):
    """Reads the frames that the client sends, from all stripes."""

    def __call__(self) -> Frame:
        """
        Return the next frame that is no keep-alive and does not name a new stripe.

        A keep-alive renews the lease. A stripe that is named is joined.
        """
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

    Call *alive* often: it reads the keep-alives and the names of new stripes that the
    client sends meanwhile.
    """

    def __init__(self, channel: protocol.Channel, box: BoxConfig) -> None:
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

    It sends the agent's keep-alives and reads those of the client, which renew the
    lease.

    Args:
        add_stripe: Is called with the name of a new stripe. Without it, such a name is
            refused.

        beat: Sends a keep-alive if one is due; by default `Channel.beat`.
    """

    def __init__(
        self,
        channel: protocol.Channel,
        box: BoxConfig,
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
        while channel.next_kind() in (b"P", b"L"):
            kind, payload = channel.receive()
            if kind == b"P":
                touch(self._lease)
            elif self._add_stripe is not None:
                self._add_stripe(payload)
            else:
                raise protocol.Refused("order", "a stripe outside of a transfer")


def stripe(
    channel: protocol.Channel, box: BoxConfig, request: Dict[str, Any]
) -> Dict[str, Any]:
    """Offer this connection as a stripe, and relay its bytes until one end closes."""
    os.makedirs(box.path("files"), exist_ok=True)
    listener = _unix_socket()
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


OPS = {"stripe": stripe}


def _unix_socket() -> socket.socket:
    # Few transfers have stripes, and the module costs an agent 4 ms of its start.
    import socket

    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)


def _join(box: BoxConfig, name: bytes) -> socket.socket:
    """Return a connection to the process on this box that serves the stripe *name*."""
    with _socket_folder(box, name.decode("ascii", "replace")) as path:
        relay = _unix_socket()
        try:
            relay.connect(path)
        except OSError as error:
            relay.close()
            raise protocol.Closed("stripe: %s" % error) from error
    return relay


def _relay(channel: protocol.Channel, joined: socket.socket) -> None:
    data = channel.rest()
    while True:
        # If the process that runs the operation has finished, it reads no more bytes
        # from the client, and sendall fails. The relay goes on nevertheless, because
        # the last bytes of that process may still have to be sent to the client.
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
def _socket_folder(box: BoxConfig, name: str) -> Iterator[str]:
    """
    Change to the folder of the sockets, and yield the file name of a stripe's socket.

    The absolute path is not used, because it may be too long: a socket's address holds
    about 100 bytes.
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
