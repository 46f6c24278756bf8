"""The HTTP connections of an object store, where its faults occur."""

from __future__ import annotations

import ssl
import threading
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote

from tests.fakes.http_server import Handler, HttpServer
from tests.fakes.object_stores.faults import Fault, Faults
from tests.fakes.object_stores.messages import (
    ReceivedRequest,
    Refusal,
    Reply,
    Request,
)

_PIECE = 1 << 20


class Owner(Protocol):
    """What a connection needs of the server; `ObjectServer` describes it."""

    tls: ssl.SSLContext | None
    requests: list[ReceivedRequest]
    refused: list[str]
    broken: list[BaseException]
    faults: Faults
    bytes_per_second: float
    closing: threading.Event

    def now(self) -> float: ...

    def answer(self, request: Request) -> Reply: ...

    def partial(self, request: Request) -> None: ...

    def error(self, request: Request, status: int, code: str) -> Reply: ...


class Server(HttpServer):
    # As many connections as a client opens at once.
    request_queue_size = 1024

    def __init__(self, owner: Owner, port: int) -> None:
        self._port = port
        self._tls = owner.tls
        super().__init__(Connection, owner)

    def server_bind(self) -> None:
        self.server_address = ("127.0.0.1", self._port)
        super().server_bind()

    def get_request(self) -> Any:
        connection, address = super().get_request()
        if self._tls is None:
            return connection, address
        # The handshake is made in the connection's own thread, at its first read.
        wrapped = self._tls.wrap_socket(
            connection, server_side=True, do_handshake_on_connect=False
        )
        return wrapped, address


class Connection(Handler):
    server_of: Owner

    def date_time_string(self, timestamp: float | None = None) -> str:
        """Return the time of the server's clock."""
        return formatdate(timestamp or self.server_of.now(), usegmt=True)

    def version_string(self) -> str:
        """Return the header Server."""
        return type(self.server_of).__name__

    def handle_expect_100(self) -> bool:
        """Send "100 Continue" at once."""
        answered = super().handle_expect_100()
        self.wfile.flush()
        return answered

    def serve(self) -> None:
        """Answer the request, with its faults."""
        owner = self.server_of
        # `self.path` has lost the second of two leading slashes.
        target = self.requestline.split(" ")[1]
        request = Request(
            self.command, target, self.headers, b"", owner.tls is not None
        )
        record = ReceivedRequest(
            self.command,
            unquote(request.raw_path),
            dict(request.pairs),
            request.header("Range"),
            self.client_address,
        )
        owner.requests.append(record)
        fault: Fault | None = None
        for one in owner.faults.take(record.method, record.path):
            if one.kind == "action":
                one.action()
            else:
                fault = one
        body = self._body(fault)
        if body is None:
            return self.cut()
        if fault and fault.kind == "cut request":
            owner.partial(
                Request(self.command, target, self.headers, body, request.secure)
            )
            return self.cut()
        if fault and fault.kind == "whole":
            del self.headers["Range"]
        request = Request(self.command, target, self.headers, body, request.secure)
        reply = self._reply(request, fault)
        try:
            self._send(reply, fault, record)
        except OSError:  # the client has gone
            self.close_connection = True

    def _body(self, fault: Fault | None) -> bytes | None:
        """Return the body; None if the connection ends within it."""
        limit = fault.at if fault and fault.kind == "cut request" else None
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            return self._chunks() if limit is None else b""
        length = int(self.headers.get("Content-Length") or 0)
        if limit is not None:
            return self.rfile.read(min(limit, length))
        body = self.rfile.read(length)
        return body if len(body) == length else None

    def _chunks(self) -> bytes:
        found = bytearray()
        while size := int(self.rfile.readline().split(b";")[0], 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return bytes(found)

    def _reply(self, request: Request, fault: Fault | None) -> Reply:
        owner = self.server_of
        try:
            if fault and fault.kind == "error":
                reply = owner.error(request, fault.status, fault.code)
                if fault.retry_after is not None:
                    reply.headers["Retry-After"] = str(fault.retry_after)
                return reply
            return owner.answer(request)
        except Refusal as refusal:
            owner.refused.append(f"{request.method} {request.target}: {refusal}")
            return refusal.reply
        except Exception as error:  # a defect of the fake, which the test reports
            owner.broken.append(error)
            return Reply(500, body=repr(error).encode())

    def _send(self, reply: Reply, fault: Fault | None, record: ReceivedRequest) -> None:
        kind = fault.kind if fault else ""
        size = reply.size
        empty = self.command == "HEAD" or reply.status in (204, 304)
        if kind == "cut" and fault and (not fault.at or empty):
            return self.cut()
        record.status = reply.status
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            for line in value.split("\n"):
                self.send_header(name, line)
        if reply.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif reply.status != 204:
            declared = size if reply.declared is None else reply.declared
            self.send_header("Content-Length", str(declared))
        self.end_headers()
        self.wfile.flush()
        if empty:
            return None
        sender = _Sender(self, reply, record)
        if fault and kind in ("cut", "stall") and fault.at < size:
            sender.send(0, fault.at)
            if kind == "cut":
                return self.cut()
            if self.server_of.closing.wait(fault.seconds):
                return self.cut()
            sender.send(fault.at, size)
        elif fault and kind == "corrupt":
            place = fault.at - reply.start
            if 0 <= place < size:
                sender.send(0, place)
                sender.send(place, place + 1, change=True)
                sender.send(place + 1, size)
            else:
                # The fault is for the response that has this byte.
                fault.times += 1
                fault.done -= 1
                sender.send(0, size)
        else:
            sender.send(0, size)
        if reply.chunked:
            self.wfile.write(b"0\r\n\r\n")
            self.wfile.flush()
        elif reply.declared is not None and reply.declared > size:
            return self.cut()
        return None


@dataclass
class _Sender:
    handler: Connection
    reply: Reply
    record: ReceivedRequest

    def send(self, first: int, end: int, change: bool = False) -> None:
        """Send some bytes of the body, counted from its start."""
        rate = self.handler.server_of.bytes_per_second
        piece = _PIECE if rate or self.reply.chunked else 1 << 62
        if rate:
            piece = max(1, min(piece, int(rate / 20)))
        while first < end:
            until = min(end, first + piece)
            self._piece(first, until, change)
            self.record.sent += until - first
            if rate and self.handler.server_of.closing.wait((until - first) / rate):
                return
            first = until

    def _piece(self, first: int, end: int, change: bool) -> None:
        body, connection = self.reply.body, self.handler.connection
        first, count = first + self.reply.start, end - first
        if isinstance(body, Path) and not change and not self.reply.chunked:
            with body.open("rb") as file:
                connection.sendfile(file, first, count)
            return
        if isinstance(body, Path):
            with body.open("rb") as file:
                file.seek(first)
                data = memoryview(file.read(count))
        else:
            data = memoryview(body)[first : first + count]
        if change:
            data = memoryview(bytes([data[0] ^ 0x55]))
        if self.reply.chunked:
            connection.sendall(b"%x\r\n" % count)
        connection.sendall(data)
        if self.reply.chunked:
            connection.sendall(b"\r\n")
