"""Requests for tests, by hand or by boto3, without retries."""

from __future__ import annotations

import contextlib
import http.client
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

from tests.fakes.object_stores.s3 import S3
from tests.fakes.object_stores.sigv4 import Credential

MakeClient = Callable[..., Any]


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


@contextlib.contextmanager
def s3_clients(store: S3, ca_file: Path | None = None) -> Iterator[MakeClient]:
    """
    Yield a function that returns boto3's client of a credential and region.

    Args:
        ca_file: The authority of a server with https.
    """
    with contextlib.ExitStack() as stack:

        def make(
            credential: Credential | None = None, region: str = "us-east-1"
        ) -> Any:
            credential = credential or store.user
            client = boto3.client(
                "s3",
                endpoint_url=store.address,
                region_name=region,
                aws_access_key_id=credential.key,
                aws_secret_access_key=credential.secret,
                aws_session_token=credential.token or None,
                verify=str(ca_file) if ca_file else None,
                config=Config(
                    signature_version="s3v4",
                    s3={"addressing_style": "path"},
                    retries={"total_max_attempts": 1},
                ),
            )
            stack.callback(client.close)
            return client

        yield make


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
