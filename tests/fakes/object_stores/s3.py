"""A fake S3: one account with buckets in any regions, behind one address."""

from __future__ import annotations

import re
import ssl
import threading
from collections.abc import Iterable
from typing import Any, Callable
from urllib.parse import unquote_to_bytes

from tests.fakes.object_stores import (
    s3_form,
    s3_read,
    s3_schema,
    s3_upload,
    s3_write,
    sigv4,
)
from tests.fakes.object_stores.messages import Refusal, Reply, Request
from tests.fakes.object_stores.objects import Bucket, Data, Upload, Version
from tests.fakes.object_stores.s3_call import OWNER, Call
from tests.fakes.object_stores.s3_errors import (
    CODES,
    RefusedError,
    document,
    no_bucket,
    refused,
)
from tests.fakes.object_stores.server import ObjectServer
from tests.fakes.object_stores.sigv4 import Credential

_HOST = re.compile(
    r"([a-z0-9][a-z0-9.-]*?)(?:\.s3[a-z0-9.-]*\.amazonaws\.com|(?:\.s3)?\.localhost)"
    r"(?::\d+)?"
)
_HANDLERS: dict[str, Callable[[Call], Reply]] = {
    **s3_read.HANDLERS,
    **s3_write.HANDLERS,
    **s3_upload.HANDLERS,
}
_PUBLIC = ("GetObject", "HeadObject", "HeadBucket", "ListObjectsV2")
GIB = 1 << 30


class S3(ObjectServer):
    """
    The S3 of one account.

    Args:
        region: That of buckets that a test creates without one.

        tls: The context of https, None for http.

    Attributes:
        endpoint_region: The region of the address: buckets of another one are a
            permanent redirect. "" is an address of all regions, where only the region
            of the signature must be that of the bucket.

        credentials: The access keys; `user` is the first.

        denied: Pairs of an action and a prefix of "bucket/key" that nobody may.

        max_put: The most bytes of one PUT.

        min_part: The fewest bytes of a part that is not the last.
    """

    def __init__(
        self, region: str = "us-east-1", tls: ssl.SSLContext | None = None
    ) -> None:
        super().__init__(tls)
        self.region = region
        self.endpoint_region = ""
        self.user = Credential("AKIATESTTESTTEST", "secret")
        self.credentials = {self.user.key: self.user}
        self.denied: set[tuple[str, str]] = set()
        self.max_put = 5 * GIB
        self.min_part = 5 << 20
        self.buckets: dict[str, Bucket] = {}
        self.uploads: dict[str, Upload] = {}
        self._made = threading.Lock()

    def create_bucket(self, name: str, region: str = "", **how: Any) -> Bucket:
        """Create a bucket; *how* is as in `Bucket`."""
        bucket = Bucket(name, region or self.region, **how)
        with self.lock:
            self.buckets[name] = bucket
        return bucket

    def put(
        self,
        bucket: str,
        key: str,
        data: Data,
        *,
        parts: Iterable[int] = (),
        kms: bool = False,
        storage_class: str = "STANDARD",
        modified: float | None = None,
        checksum: str = "CRC32",
        headers: dict[str, str] | None = None,
    ) -> Version:
        """
        Put an object, and create its bucket if it does not exist.

        Args:
            parts: The sizes of the parts, as a multipart upload has sent them.

            kms: Whether it is encrypted with a key of KMS, so that its ETag is no MD5.

            checksum: The algorithm of the checksum that S3 has, "" for none. CRC32 is
                what the SDKs send; of an object without one, S3 makes CRC64NVME.

            headers: Further headers of each response, such as "x-amz-meta-a".
        """
        with self.lock:
            place = self.buckets.get(bucket) or self.create_bucket(bucket)
            version = s3_write.make(
                data,
                self.now() if modified is None else modified,
                parts=tuple(parts),
                kms=kms,
                algorithm=checksum,
                composite=bool(parts),
                headers={"Content-Type": "binary/octet-stream", **(headers or {})},
                storage_class=storage_class,
                versioned=place.versioned,
            )
            place.put(key, version)
        return version

    def put_many(self, bucket: str, keys: Iterable[str], data: bytes) -> None:
        """Put the same bytes under many keys; a million take a few seconds."""
        with self.lock:
            version = self.put(bucket, "", data)
            self.buckets[bucket].remove("")
            self.buckets[bucket].put_many(keys, version)

    def temporary(self, seconds: float = 3600.0) -> Credential:
        """Return new temporary credentials, as a machine's role gets them."""
        with self._made:
            number = len(self.credentials)
            made = Credential(
                f"ASIATEST{number:08}",
                f"secret-{number}",
                f"token/{number}+==",
                self.now() + seconds,
            )
            self.credentials[made.key] = made
        return made

    def environment(self, credential: Credential | None = None) -> dict[str, str]:
        """Return the variables with which AWS's SDKs use the store."""
        one = credential or self.user
        found = {
            "AWS_ACCESS_KEY_ID": one.key,
            "AWS_SECRET_ACCESS_KEY": one.secret,
            "AWS_REGION": self.region,
            "AWS_ENDPOINT_URL_S3": self.address,
        }
        return found | ({"AWS_SESSION_TOKEN": one.token} if one.token else {})

    def deny(self, action: str, prefix: str = "") -> None:
        """Deny everyone an action such as "s3:GetObject" on a prefix of bucket/key."""
        self.denied.add((action, prefix))

    def answer(self, request: Request) -> Reply:
        """Answer a request."""
        try:
            return self._answer(request)
        except RefusedError as error:
            raise Refusal(self._document(request, error), str(error)) from None

    def error(self, request: Request, status: int, code: str) -> Reply:
        """Return the response of a requested error."""
        return self._document(
            request, refused(status, code or CODES.get(status, "InternalError"))
        )

    def _document(self, request: Request, error: RefusedError) -> Reply:
        reply = document(error, request.raw_path)
        reply.headers.update(error.headers)
        bucket = None
        if error.code != "InvalidURI":
            bucket = self.buckets.get(_place(request)[0])
        if bucket:
            reply.headers["x-amz-bucket-region"] = bucket.region
        if request.method == "HEAD":
            reply.body = b""
        return reply

    def _answer(self, request: Request) -> Reply:
        name, key = _place(request)
        bucket = self.buckets.get(name) if name else None
        if bucket and self.endpoint_region not in ("", bucket.region):
            raise _redirect(bucket)
        if name and not key and s3_form.is_form(request):
            if bucket is None:
                raise no_bucket(name)
            with self.lock:
                return s3_form.post(self, request, name)
        signed = sigv4.check(
            request, self.credentials, bucket.region if bucket else "", self.now()
        )
        if signed is None and not (bucket and bucket.public):
            raise refused(403, "AccessDenied")
        operation = s3_schema.read(request, bool(name), bool(key))
        if signed is None and operation.name not in _PUBLIC:
            raise refused(403, "AccessDenied")
        if len(key.encode()) > 1024:
            raise RefusedError(
                400,
                "KeyTooLongError",
                "Your key is too long",
                Size=len(key.encode()),
                MaxSizeAllowed=1024,
            )
        if name and bucket is None and operation.name != "CreateBucket":
            raise no_bucket(name)
        owner = operation.get("x-amz-expected-bucket-owner", OWNER)
        if owner != OWNER:
            raise refused(403, "AccessDenied")
        call = Call(self, request, operation, name, key, signed)
        handler = _HANDLERS.get(operation.name)
        if handler is None:
            raise RefusedError(
                501, "NotImplemented", f"this fake has no {operation.name}"
            )
        with self.lock:
            reply = handler(call)
        if bucket:
            reply.headers.setdefault("x-amz-bucket-region", bucket.region)
        reply.headers.setdefault("x-amz-request-id", "4442587FB7D0A2F9")
        reply.headers.setdefault("x-amz-id-2", "fake")
        return reply


def _place(request: Request) -> tuple[str, str]:
    """Return bucket and key, of a path or of a host such as "bucket.localhost"."""
    raw = unquote_to_bytes(request.raw_path)
    try:
        path = raw.decode()
    except UnicodeDecodeError:
        raise RefusedError(
            400, "InvalidURI", "Couldn't parse the specified URI."
        ) from None
    match = _HOST.fullmatch(request.header("Host"))
    if match:
        return match[1], path[1:]
    bucket, _, key = path[1:].partition("/")
    return bucket, key


def _redirect(bucket: Bucket) -> RefusedError:
    return RefusedError(
        301,
        "PermanentRedirect",
        "The bucket you are attempting to access must be addressed using the specified "
        "endpoint. Please send all future requests to this endpoint.",
        Endpoint=f"{bucket.name}.s3.{bucket.region}.amazonaws.com",
        Bucket=bucket.name,
    )
