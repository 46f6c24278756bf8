"""List the objects of S3, and sign links to them, with the user's AWS configuration."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from onebox.errors import InputError, NotAllowed, ProviderError
from onebox.providers.aws import errors
from onebox.providers.aws.client import Cloud
from onebox.providers.object_stores import (
    LINK_SECONDS,
    Link,
    ObjectStore,
    StoredObject,
)
from onebox.settings.data_sources import DataSource
from onebox.settings.fields import ProviderTable

# The region in which an account without a configured region asks first.
_ANY_REGION = "us-east-1"
_MD5 = re.compile(r"[0-9a-f]{32}(?:-[0-9]+)?")
_GONE = re.compile(r"NoSuchBucket|NoSuchKey|404|NotFound")
_PERMISSIONS = "s3:ListBucket on the bucket and s3:GetObject on its objects"


class S3(ObjectStore):
    """
    Amazon S3, or another service that speaks its protocol.

    The address of another service comes from the user's own AWS configuration
    (AWS_ENDPOINT_URL_S3, or `endpoint_url` in ~/.aws/config).
    """

    def __init__(
        self, settings: ProviderTable | None = None, *, own_box: bool = False
    ) -> None:
        super().__init__(settings, own_box=own_box)
        self._cloud = Cloud()
        self._regions: dict[str, str] = {}
        self._lock = threading.Lock()

    def find(self, source: DataSource) -> Iterator[list[StoredObject]]:
        """See `ObjectStore.find`."""
        if not source.is_folder:
            yield [self._head(source)]
            return
        words = {"Bucket": source.bucket, "Prefix": source.key}
        while True:
            answer = self._call(source, "list_objects_v2", words)
            yield [_listed(one) for one in answer.get("Contents", ())]
            if not answer.get("IsTruncated"):
                return
            words["ContinuationToken"] = answer["NextContinuationToken"]

    def link(self, source: DataSource, found: StoredObject) -> Link | None:
        """See `ObjectStore.link`."""
        client = self._cloud.client("s3", self._region(source))
        with errors.explained("get_object"):
            url = client.generate_presigned_url(
                "get_object",
                Params={"Bucket": source.bucket, "Key": found.key},
                ExpiresIn=LINK_SECONDS,
            )
        headers = {"If-Match": f'"{found.version}"'}
        if "-" not in found.md5:
            return Link(url, headers, md5=found.md5)
        # The sum of an upload in parts can be compared if the size of the parts is
        # known. All parts but the last have the same size, by the rules of S3's tools.
        first = self._call(
            source,
            "head_object",
            {"Bucket": source.bucket, "Key": found.key, "PartNumber": 1},
        )
        size, count = int(first["ContentLength"]), int(found.md5.partition("-")[2])
        if str(first.get("ETag", "")).strip('"') != found.version:
            return None
        if size <= 0 or -(-found.size // size) != count:
            return Link(url, headers)
        return Link(url, headers, md5=found.md5.partition("-")[0], piece=size)

    def _head(self, source: DataSource) -> StoredObject:
        words = {"Bucket": source.bucket, "Key": source.key}
        return _listed({**self._call(source, "head_object", words), **words})

    def _region(self, source: DataSource) -> str:
        """Return the region of a bucket, which is asked for once."""
        with self._lock:
            region = self._regions.get(source.bucket)
            if region is None:
                cloud = self._cloud
                own = cloud.session.get_config_variable("region") or _ANY_REGION
                self._regions[source.bucket] = region = own
                with _explained(source):
                    answer = cloud.call("s3", "head_bucket", own, Bucket=source.bucket)
                headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
                region = str(headers.get("x-amz-bucket-region") or own)
                self._regions[source.bucket] = region
            return region

    def _call(
        self, source: DataSource, operation: str, words: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        with _explained(source):
            return self._cloud.call("s3", operation, self._region(source), **words)


@contextlib.contextmanager
def _explained(source: DataSource) -> Iterator[None]:
    """Name the address in the errors of the `with` block, and what is wrong with it."""
    try:
        yield
    except NotAllowed as error:
        if errors.code(error) not in ("403", "AccessDenied"):
            raise
        raise NotAllowed(
            f"{source.shown}: these AWS credentials may not read it",
            next=f"allow {_PERMISSIONS}",
        ) from error
    except ProviderError as error:
        code = errors.code(error)
        if code == "403":
            raise NotAllowed(
                f"{source.shown}: these AWS credentials may not read it",
                next=f"allow {_PERMISSIONS}",
            ) from error
        if not _GONE.fullmatch(code):
            raise
        raise InputError(
            f"{source.shown} does not exist, or these AWS credentials may not see it",
            next="aws s3 ls, or correct [push] data",
        ) from error


def _listed(found: Mapping[str, Any]) -> StoredObject:
    etag = str(found.get("ETag", "")).strip('"')
    return StoredObject(
        key=str(found["Key"]),
        size=int(found.get("Size", found.get("ContentLength", 0))),
        version=etag,
        modified=float(found["LastModified"].timestamp()),
        md5=etag if _MD5.fullmatch(etag) else "",
    )
