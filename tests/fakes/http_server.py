"""The HTTP server of a fake cloud, which ends every connection when it stops."""

from __future__ import annotations

import contextlib
import http.server
import socket
import threading
from collections.abc import Iterator
from typing import Any


class HttpServer(http.server.ThreadingHTTPServer):
    """
    A server on loopback with a thread for each connection.

    Args:
        handler: The class of the handlers; it gets the attribute *server_of*.
    """

    daemon_threads = True

    def __init__(self, handler: type[Handler], server_of: Any) -> None:
        super().__init__(
            ("127.0.0.1", 0), type("Handler", (handler,), {"server_of": server_of})
        )
        self._open: dict[socket.socket, threading.Thread] = {}

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Serve while the body runs; then end every connection and its thread."""
        thread = threading.Thread(target=self.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield
        finally:
            self.shutdown()
            thread.join()
            self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread of its own."""
        thread = threading.Thread(
            target=self.process_request_thread,
            args=(request, client_address),
            daemon=True,
        )
        self._open[request] = thread
        thread.start()

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        super().shutdown_request(request)
        self._open.pop(request, None)

    def server_close(self) -> None:
        """Close the socket that listens, and every connection."""
        super().server_close()
        for request, thread in list(self._open.items()):
            with contextlib.suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)
            thread.join()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that close their connection."""


class Handler(http.server.BaseHTTPRequestHandler):
    """Passes each request to `serve`."""

    protocol_version = "HTTP/1.1"
    # Send a response in one piece: two small writes are 40 ms apart.
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self.serve()

    def do_HEAD(self) -> None:
        self.serve()

    def do_POST(self) -> None:
        self.serve()

    def do_PUT(self) -> None:
        self.serve()

    def do_PATCH(self) -> None:
        self.serve()

    def do_DELETE(self) -> None:
        self.serve()

    def serve(self) -> None:
        """Answer the request; each fake defines it."""
        raise NotImplementedError

    def cut(self) -> None:
        """Close the connection after what has been written."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)

    def finish(self) -> None:
        """Close both directions, also if the client has gone."""
        with contextlib.suppress(OSError):
            super().finish()
        self.rfile.close()

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""
