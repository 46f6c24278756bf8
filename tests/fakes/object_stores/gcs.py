"""A fake Google Cloud Storage: JSON API, XML API and token endpoint at one address."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

from tests.fakes.gcp import credentials
from tests.fakes.object_stores import gcs_errors, gcs_json, gcs_upload, gcs_xml
from tests.fakes.object_stores.gcs_auth import CLOUD, Caller, is_link
from tests.fakes.object_stores.gcs_errors import GoogleError
from tests.fakes.object_stores.gcs_state import State
from tests.fakes.object_stores.messages import Refusal, Reply, Request
from tests.fakes.object_stores.objects import Bucket, Data, Version
from tests.fakes.object_stores.server import ObjectServer

_JSON = ("/storage/v1/", "/upload/storage/v1/", "/download/storage/v1/")


class GCS(ObjectServer):
    """
    The Cloud Storage of one project.

    Args:
        tls: The context of https, None for http.

    Attributes:
        state: Buckets, accounts, denied permissions and unfinished uploads.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(tls)
        self.state = State()

    @property
    def buckets(self) -> dict[str, Bucket]:
        """The buckets by name."""
        return self.state.buckets

    def create_bucket(self, name: str, location: str = "US", **how: Any) -> Bucket:
        """Create a bucket; *how* is as in `Bucket`."""
        bucket = Bucket(name, location, **how)
        with self.lock:
            self.buckets[name] = bucket
        return bucket

    def put(
        self,
        bucket: str,
        key: str,
        data: Data,
        *,
        composite: bool = False,
        storage_class: str = "STANDARD",
        modified: float | None = None,
        headers: dict[str, str] | None = None,
    ) -> Version:
        """
        Put an object, and create its bucket if it does not exist.

        Args:
            composite: Whether it was composed of others, so that it has no MD5.

            headers: Further headers of each response, such as "x-goog-meta-a", or
                "Content-Encoding: gzip" for bytes that are compressed.
        """
        with self.lock:
            place = self.buckets.get(bucket) or self.create_bucket(bucket)
            version = Version(
                data,
                "",
                self.now() if modified is None else modified,
                headers={"Content-Type": "application/octet-stream", **(headers or {})},
                composite=composite,
                storage_class=storage_class,
            )
            place.put(key, version)
        return version

    def put_many(self, bucket: str, keys: Iterable[str], data: bytes) -> None:
        """Put the same bytes under many keys."""
        with self.lock:
            version = self.put(bucket, "", data)
            self.buckets[bucket].remove("")
            self.buckets[bucket].put_many(keys, version)

    def key_file(self, path: Path, email: str = credentials.EMAIL) -> Path:
        """Write a key file of a service account whose token endpoint is here."""
        token_uri = f"{self.address or 'http://127.0.0.1:9'}/token"
        credentials.key_file(path, client_email=email, token_uri=token_uri)
        self.state.accounts.trust(path)
        return path

    def token(
        self,
        email: str = credentials.EMAIL,
        scopes: Iterable[str] = (CLOUD,),
        seconds: float = 3600.0,
    ) -> str:
        """Return a new token, as a metadata server gives it to a machine."""
        return self.state.accounts.issue(email, frozenset(scopes), self.now() + seconds)

    def deny(self, permission: str, prefix: str = "", email: str = "") -> None:
        """
        Deny a permission such as "storage.objects.get" on a prefix of bucket/key.

        Args:
            email: The account that lacks it, "" for everyone.
        """
        if email:
            denied = self.state.accounts.denied.setdefault(email, set())
        else:
            denied = self.state.denied
        denied.add((permission, prefix))

    def answer(self, request: Request) -> Reply:
        """Answer a request."""
        try:
            return self._answer(request)
        except GoogleError as error:
            raise Refusal(self._document(request, error), str(error)) from None

    def partial(self, request: Request) -> None:
        """Keep what has arrived of a resumable upload."""
        upload = self.state.uploads.get(dict(request.pairs).get("upload_id", ""))
        if upload and request.method == "PUT":
            with self.lock:
                gcs_upload.receive(upload, request, cut=True)

    def error(self, request: Request, status: int, code: str) -> Reply:
        """Return the response of a requested error."""
        return self._document(request, GoogleError(status, reason=code, code=code))

    def _document(self, request: Request, error: GoogleError) -> Reply:
        if error.status == 304:
            return Reply(304)
        is_json = request.raw_path.startswith(_JSON)
        reply = gcs_errors.as_json(error) if is_json else gcs_errors.as_xml(error)
        if request.method == "HEAD":
            reply.body = b""
        return reply

    def _answer(self, request: Request) -> Reply:
        path, accounts = request.raw_path, self.state.accounts
        if path == "/token":
            return accounts.exchange(request, self.now())
        upload_id = dict(request.pairs).get("upload_id")
        if upload_id is not None:
            with self.lock:
                return gcs_upload.proceed(
                    self.state, self.address, request, upload_id, self.now()
                )
        if path.startswith(_JSON):
            return self._json(request, accounts.bearer(request, self.now()))
        if not is_link(request):
            caller = accounts.bearer(request, self.now())
        elif request.header("Authorization"):
            raise GoogleError(400, details="a signed link with a token as well")
        else:
            caller = accounts.link(request, self.now())
        return self._xml(request, caller)

    def _json(self, request: Request, caller: Caller | None) -> Reply:
        path = request.raw_path
        if path.startswith("/upload"):
            with self.lock:
                return gcs_upload.insert(
                    self.state, self.address, request, caller, self.now()
                )
        if path.startswith("/download"):
            path = path[len("/download") :]
            if dict(request.pairs).get("alt") != "media":
                raise GoogleError(400, details="/download needs alt=media")
        call = gcs_json.read(request, path, None)
        gcs_json.check_scopes(call, caller)
        with self.lock:
            return gcs_json.answer(
                gcs_json.JsonCall(self.state, self.address, request, call, caller)
            )

    def _xml(self, request: Request, caller: Caller | None) -> Reply:
        try:
            path = unquote_to_bytes(request.raw_path).decode()
        except UnicodeDecodeError:
            raise GoogleError(400, details="the name is not UTF-8") from None
        bucket, _, key = path[1:].partition("/")
        if not key:
            raise GoogleError(501, details="this fake has no buckets in the XML API")
        gcs_xml.check_parameters(request)
        call = gcs_xml.XmlCall(self.state, self.address, request, caller, bucket, key)
        with self.lock:
            if request.method in ("GET", "HEAD"):
                return gcs_xml.get(call)
            if request.method == "DELETE":
                return gcs_xml.delete(call)
            if request.method == "PUT":
                return gcs_upload.put(call, self.now())
            if request.method == "POST":
                return gcs_upload.begin(call)
        raise GoogleError(405, f"{request.method} is not allowed")
