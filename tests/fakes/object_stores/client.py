"""Requests by hand, for tests: nothing is retried, followed or decoded."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Response:
    """
    A response; the names of the headers are in lower case.

    Attributes:
        headers: The last value of each.

        all: All values of each.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    all: Mapping[str, list[str]]


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
        found: dict[str, list[str]] = {}
        for name, value in response.getheaders():
            found.setdefault(name.lower(), []).append(value)
        last = {name: values[-1] for name, values in found.items()}
        return Response(response.status, last, response.read(), found)
    finally:
        connection.close()
