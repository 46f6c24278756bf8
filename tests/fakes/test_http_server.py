"""The HTTP server of the fake clouds."""

from __future__ import annotations

import gc
import http.client
import socket

from tests.fakes.http_server import Handler, HttpServer


class _Hello(Handler):
    def serve(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")


def test_no_connection_outlives_the_server() -> None:
    """
    A client keeps its connection, as a provider of a test that has ended does.

    Otherwise the socket is open until the garbage collector finds it, and the
    ResourceWarning fails whichever test is running then.
    """
    server = HttpServer(_Hello, None)
    host, port = "127.0.0.1", server.server_address[1]
    client = http.client.HTTPConnection(host, port, timeout=30)
    with server.running():
        client.request("GET", "/")
        assert b"ok" == client.getresponse().read()
        left = [
            one
            for one in gc.get_objects()
            if isinstance(one, socket.socket)
            and one.fileno() != -1
            and one.getsockname()[1] == port
        ]
        assert 2 == len(left)
    assert [-1, -1] == [one.fileno() for one in left]
    client.close()
