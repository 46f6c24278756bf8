"""What S3, Google Cloud Storage and the web server share: HTTP, a log, and faults."""

from __future__ import annotations

import contextlib
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from tests.fakes.object_stores.faults import Fault, Faults
from tests.fakes.object_stores.handler import Server
from tests.fakes.object_stores.messages import ReceivedRequest, Reply, Request


class ObjectServer:
    """
    A server on loopback.

    Args:
        tls: The context of https, None for http.

    Attributes:
        requests: All requests, in the order in which they came.

        refused: Why requests were refused, one line each.

        broken: Errors of the fake itself; the end of `running` raises the first.

        clock_offset: Seconds that the server's clock is ahead of ours.

        bytes_per_second: The rate of each response, 0 for as fast as possible.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.tls = tls
        self.requests: list[ReceivedRequest] = []
        self.refused: list[str] = []
        self.broken: list[BaseException] = []
        self.faults = Faults()
        self.clock_offset = 0.0
        self.bytes_per_second = 0.0
        self.address = ""
        self.lock = threading.RLock()
        self.closing = threading.Event()

    @contextlib.contextmanager
    def running(self, port: int = 0) -> Iterator[str]:
        """Serve as long as the context is open; yield the address."""
        self.closing.clear()
        http_server = Server(self, port)
        scheme = "https" if self.tls else "http"
        self.address = f"{scheme}://127.0.0.1:{http_server.server_address[1]}"
        with http_server.running():
            try:
                yield self.address
            finally:
                self.closing.set()
        if self.broken:
            raise self.broken[0]

    def now(self) -> float:
        """Return the time of the server's clock, in seconds since the epoch."""
        return time.time() + self.clock_offset

    def answer(self, request: Request) -> Reply:
        """Answer a request; each server defines it."""
        raise NotImplementedError

    def error(self, request: Request, status: int, code: str) -> Reply:
        """Return the response of a requested error; each server defines it."""
        return Reply(status, body=code.encode())

    def partial(self, request: Request) -> None:
        """Take note of a request whose connection was cut within its body."""

    def fail(self, status: int = 503, **how: Any) -> Fault:
        """Refuse the next request with an error; *how* is as in `Fault`."""
        return self.faults.add(Fault("error", status=status, **how))

    def cut(self, at: int = 0, **how: Any) -> Fault:
        """
        End the connection of the next request after *at* bytes of the response's body.

        With 0, there is no response, though the request has taken effect.
        """
        return self.faults.add(Fault("cut", at=at, **how))

    def cut_request(self, at: int = 0, **how: Any) -> Fault:
        """
        End the connection after *at* bytes of the request's body.

        The request has no effect, but a resumable upload keeps what has arrived.
        """
        return self.faults.add(Fault("cut request", at=at, **how))

    def stall(self, at: int = 0, seconds: float = 3600.0, **how: Any) -> Fault:
        """Send no more for some seconds after *at* bytes of the body."""
        return self.faults.add(Fault("stall", at=at, seconds=seconds, **how))

    def corrupt(self, at: int = 0, **how: Any) -> Fault:
        """Change the byte at an offset of the object in the next response with it."""
        return self.faults.add(Fault("corrupt", at=at, **how))

    def ignore_range(self, **how: Any) -> Fault:
        """Answer the next request as if it had no Range."""
        return self.faults.add(Fault("whole", **how))

    def before(self, action: Callable[[], object], skip: int = 0, **how: Any) -> Fault:
        """Run a function before a request is answered, after *skip* others."""
        return self.faults.add(Fault("action", action=action, skip=skip, **how))
