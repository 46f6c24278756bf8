"""Requests by hand, for tests: nothing is retried, followed or decoded."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Response:
    """A response; the names of the headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def send(
    url: str,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    context: ssl.SSLContext | None = None,
) -> Response:
    """Send one request on a connection of its own; return the response."""
    parts = urlsplit(url)
    assert parts.hostname
    host, port = parts.hostname, parts.port
    connection = (
        http.client.HTTPSConnection(host, port, timeout=30, context=context)
        if parts.scheme == "https"
        else http.client.HTTPConnection(host, port, timeout=30)
    )
    try:
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        connection.request(method, target or "/", body, dict(headers or {}))
        response = connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        return Response(response.status, found, response.read())
    finally:
        connection.close()
