"""Requests for tests without retries: by hand, by boto3, or by a signed link."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable
from urllib.parse import quote, urlsplit

import boto3
from botocore.config import Config
from google.oauth2 import service_account

from tests.fakes.gcp.credentials import EMAIL
from tests.fakes.object_stores.gcs import GCS
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


class Signer:
    """
    Signs links of Cloud Storage, as a service account whose key file it writes.

    Args:
        store: A running store.
    """

    def __init__(self, store: GCS, key_file: Path, email: str = EMAIL) -> None:
        self._store, self._email = store, email
        file = store.key_file(key_file, email)
        # google-auth declares types, but not that of this function.
        credentials: Any = service_account.Credentials
        self._signer = credentials.from_service_account_file(str(file)).signer

    def __call__(
        self,
        key: str,
        seconds: int = 60,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        bucket: str = "b",
        **query: str,
    ) -> str:
        """Return a link for an object."""
        date = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        scope = f"{date[:8]}/auto/storage/goog4_request"
        signed = {"host": self._store.address.partition("//")[2], **(headers or {})}
        names = ";".join(sorted(signed))
        query = {
            "X-Goog-Algorithm": "GOOG4-RSA-SHA256",
            "X-Goog-Credential": f"{self._email}/{scope}",
            "X-Goog-Date": date,
            "X-Goog-Expires": str(seconds),
            "X-Goog-SignedHeaders": names,
            **query,
        }
        text = "&".join(
            f"{quote(name, safe='')}={quote(value, safe='')}"
            for name, value in sorted(query.items())
        )
        path = f"/{bucket}/{quote(key, safe='/~')}"
        lines = "".join(f"{name}:{signed[name]}\n" for name in sorted(signed))
        canonical = "\n".join([method, path, text, lines, names, "UNSIGNED-PAYLOAD"])
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        to_sign = "\n".join(["GOOG4-RSA-SHA256", date, scope, digest])
        signature = self._signer.sign(to_sign.encode()).hex()
        return f"{self._store.address}{path}?{text}&X-Goog-Signature={signature}"


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
