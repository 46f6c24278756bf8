"""A web server that accepts notifications, refuses them, or does not answer."""

from __future__ import annotations

import http.server
import json
import threading
import time
from typing import Any

# The path of every URL; it stands for a secret token, which nothing may show.
TOKEN = "hush-token-5d1f"


class Hook:
    """
    A server on loopback that records what is posted to it.

    Attributes:
        posted: The JSON documents, in order of arrival.

        status: The HTTP status of the answers; 0 means that no answer comes.

        delay: How many seconds pass before a document is recorded.
    """

    def __init__(self, status: int = 200) -> None:
        self.posted: list[dict[str, Any]] = []
        self.status = status
        self.delay = 0.0
        self.over = threading.Event()
        hook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                assert f"/{TOKEN}" == self.path
                assert "application/json" == self.headers["Content-Type"]
                time.sleep(hook.delay)
                hook.posted.append(json.loads(self.rfile.read(length)))
                if not hook.status:
                    hook.over.wait(60)
                    return
                self.send_response(hook.status)
                if hook.status in (301, 302, 307):
                    self.send_header("Location", f"{hook.url}-moved")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/{TOKEN}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop the server."""
        self.over.set()
        self._server.shutdown()
        self._server.server_close()

    def until_posted(self, count: int = 1, *, seconds: float = 120) -> None:
        """Wait until *count* documents have been posted."""
        end = time.monotonic() + seconds
        while len(self.posted) < count:
            assert time.monotonic() < end, f"{len(self.posted)} documents arrived"
            time.sleep(0.02)
