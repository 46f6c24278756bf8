"""One authenticated call of an S3 operation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from tests.fakes.object_stores.messages import Request
from tests.fakes.object_stores.objects import Bucket, Upload, Version
from tests.fakes.object_stores.s3_errors import RefusedError, denied, refused
from tests.fakes.object_stores.s3_schema import Operation
from tests.fakes.object_stores.sigv4 import Credential, Signed

OWNER = "123456789012"


class Account(Protocol):
    """What an operation needs of the account; `s3.S3` describes it."""

    address: str
    region: str
    buckets: dict[str, Bucket]
    uploads: dict[str, Upload]
    credentials: dict[str, Credential]
    denied: set[tuple[str, str]]
    max_put: int
    min_part: int

    def now(self) -> float: ...

    def create_bucket(self, name: str, region: str = "", **how: Any) -> Bucket: ...


@dataclass(frozen=True)
class Call:
    """A call; *signed* is None for anyone."""

    account: Account
    request: Request
    operation: Operation
    bucket_name: str
    key: str
    signed: Signed | None

    @property
    def bucket(self) -> Bucket:
        """The bucket, which exists."""
        return self.account.buckets[self.bucket_name]

    def get(self, name: str, default: str = "") -> str:
        """Return a parameter or header by its wire name."""
        return self.operation.get(name, default)

    def permit(self, action: str, key: str | None = None) -> None:
        """Raise RefusedError if the caller may not do this."""
        credential = self.signed.credential if self.signed else None
        permit(self.account, credential, action, self.bucket_name, key)

    def missing(self, error: RefusedError) -> RefusedError:
        """Return the refusal for a missing object: 403 for who may not list."""
        try:
            self.permit("s3:ListBucket")
        except RefusedError:
            return refused(403, "AccessDenied")
        return error if self.bucket.listable else refused(403, "AccessDenied")


def permit(
    account: Account,
    credential: Credential | None,
    action: str,
    bucket: str,
    key: str | None,
) -> None:
    """Raise RefusedError if an action is denied on a bucket or one of its objects."""
    resource = bucket if key is None else f"{bucket}/{key}"
    rules = account.denied | (credential.denied if credential else set())
    if any(one == action and resource.startswith(prefix) for one, prefix in rules):
        if credential and credential.token:
            caller = f"arn:aws:sts::{OWNER}:assumed-role/box/i-0123456789abcdef0"
        else:
            caller = f"arn:aws:iam::{OWNER}:user/tester"
        raise denied(action, resource, caller)


def metadata(version: Version) -> dict[str, str]:
    """Return the headers that describe a version."""
    found = {
        "ETag": f'"{version.etag}"',
        "Accept-Ranges": "bytes",
        **version.headers,
    }
    if version.version_id != "null":
        found["x-amz-version-id"] = version.version_id
    if version.storage_class != "STANDARD":
        found["x-amz-storage-class"] = version.storage_class
    return found


def checksum_headers(version: Version) -> dict[str, str]:
    """Return the headers with the checksum of a version."""
    if not version.algorithm:
        return {}
    return {
        f"x-amz-checksum-{version.algorithm.lower()}": version.checksum,
        "x-amz-checksum-type": version.checksum_type,
    }
