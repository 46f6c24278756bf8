"""A web server with files, as good or as bad as a test requests."""

from __future__ import annotations

import hashlib
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from tests.fakes.object_stores import ranges
from tests.fakes.object_stores.messages import Refusal, Reply, Request
from tests.fakes.object_stores.objects import Data
from tests.fakes.object_stores.server import ObjectServer


@dataclass
class File:
    """
    A file and how it is served; a test may change it between requests.

    Attributes:
        ranges: Whether Range is answered, and Accept-Ranges sent.

        etag: Which kind of ETag is sent, "" for none.

        modified: Last-Modified in seconds since the epoch, None for none.

        chunked: Whether it is sent in chunks, without a length.

        declared: A wrong Content-Length, None for the true one. The connection ends
            after the true bytes.

        head: Whether HEAD is allowed.

        headers: Further headers, such as Content-Type or Set-Cookie.
    """

    data: Data
    ranges: bool = True
    etag: Literal["strong", "weak", ""] = "strong"
    modified: float | None = None
    chunked: bool = False
    declared: int | None = None
    head: bool = True
    headers: dict[str, str] = field(default_factory=dict)
    _hashed: tuple[Data, str] = (b"", "d41d8cd98f00")

    def read(self) -> bytes:
        """Return all bytes."""
        return self.data.read_bytes() if isinstance(self.data, Path) else self.data

    def tag(self) -> str:
        """Return a text that changes with the data."""
        if isinstance(self.data, Path):
            status = self.data.stat()
            return f"{status.st_mtime_ns:x}-{status.st_size:x}"
        if self._hashed[0] is not self.data:
            self._hashed = (self.data, hashlib.md5(self.data).hexdigest()[:12])
        return self._hashed[1]


class Web(ObjectServer):
    """
    A web server.

    Args:
        tls: The context of https, None for http.

    Attributes:
        files: The files by their decoded paths, such as "/a b".

        redirects: Location and status by path; a redirect of a path to itself is
            endless.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(tls)
        self.files: dict[str, File] = {}
        self.redirects: dict[str, tuple[str, int]] = {}

    def put(self, path: str, file: File) -> File:
        """Serve a file; return it."""
        with self.lock:
            self.files[path] = file
        return file

    def redirect(self, path: str, location: str, status: int = 302) -> None:
        """Redirect a path."""
        self.redirects[path] = (location, status)

    def answer(self, request: Request) -> Reply:
        """Answer a request."""
        path = unquote(request.raw_path)
        if path in self.redirects:
            location, status = self.redirects[path]
            return Reply(status, {"Location": location})
        if request.method not in ("GET", "HEAD"):
            raise Refusal(Reply(405), "only GET and HEAD")
        with self.lock:
            file = self.files.get(path)
            if file is None:
                body = b"<html><body>Not Found</body></html>"
                raise Refusal(Reply(404, {"Content-Type": "text/html"}, body), path)
            if request.method == "HEAD" and not file.head:
                raise Refusal(Reply(405), "no HEAD")
            return _serve(request, file)


def _serve(request: Request, file: File) -> Reply:
    etag = file.tag() if file.etag else ""
    headers = {"Content-Type": "application/octet-stream", **file.headers}
    if file.etag:
        headers["ETag"] = f'"{etag}"' if file.etag == "strong" else f'W/"{etag}"'
    if file.modified is not None:
        headers["Last-Modified"] = ranges.http_date(file.modified)
    if file.ranges:
        headers["Accept-Ranges"] = "bytes"
    given = {name.lower(): str(value) for name, value in request.headers.items()}
    if not file.etag:
        given.pop("if-match", None)
        given.pop("if-none-match", None)
    failed = ranges.condition(given, etag, file.modified or 0, file.etag == "weak")
    if failed:
        return Reply(failed[0], headers)
    reply = Reply(200, headers, file.data, declared=file.declared, chunked=file.chunked)
    wanted = given.get("range", "")
    unchanged = given.get("if-range") in (
        None,
        headers.get("ETag") if file.etag == "strong" else None,
        headers.get("Last-Modified"),
    )
    if not (file.ranges and wanted and unchanged and request.method == "GET"):
        return reply
    size = reply.size
    found = ranges.parse_range(wanted, size)
    if found == "wrong":
        headers["Content-Range"] = f"bytes */{size}"
        return Reply(416, headers)
    if found is not None:
        reply.status, (reply.start, reply.length) = 206, found
        last = reply.start + reply.length - 1
        headers["Content-Range"] = f"bytes {reply.start}-{last}/{size}"
    return reply
