"""List the objects of S3, and sign links to them, with the user's AWS configuration."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
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
            found = self._head(source)
            self._read_first_byte(source, found)
            yield [found]
            return
        words = {"Bucket": source.bucket, "Prefix": source.key}
        is_first = True
        while True:
            answer = self._call(source, "list_objects_v2", words)
            page = [_listed(one) for one in answer.get("Contents", ())]
            if is_first and page:
                self._read_first_byte(source, max(page, key=lambda one: one.size))
                is_first = False
            yield page
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
        etag = f'"{found.version}"'
        link = Link(url, {"If-Match": etag}, etag=etag, md5=found.md5)
        if "-" not in found.md5:
            return link
        piece = self._part_size(source, found)
        if piece is None:
            return None
        md5 = found.md5.partition("-")[0] if piece else ""
        return replace(link, md5=md5, piece=piece)

    def _part_size(self, source: DataSource, found: StoredObject) -> int | None:
        """
        Return the size of the parts of an upload, 0 if they have several.

        The sum of an upload in parts can be compared only if this is known. With the
        common tools all parts but the last have one size.

        Returns:
            None if the object is not the listed one any more.
        """
        count = int(found.md5.partition("-")[2])
        sizes = []
        for number in dict.fromkeys((1, count)):
            words = {"Bucket": source.bucket, "Key": found.key, "PartNumber": number}
            answer = self._call(source, "head_object", words)
            if str(answer.get("ETag", "")).strip('"') != found.version:
                return None
            sizes.append(int(answer["ContentLength"]))
        is_regular = sizes[0] * (count - 1) + sizes[-1] == found.size
        return sizes[0] if is_regular and sizes[-1] <= sizes[0] else 0

    def _head(self, source: DataSource) -> StoredObject:
        words = {"Bucket": source.bucket, "Key": source.key}
        return _listed({**self._call(source, "head_object", words), **words})

    def _read_first_byte(self, source: DataSource, found: StoredObject) -> None:
        """Raise NotAllowed if the credentials may list an object, but not read it."""
        if found.size:
            words = {"Bucket": source.bucket, "Key": found.key, "Range": "bytes=0-0"}
            self._call(source, "get_object", words)["Body"].close()

    def _region(self, source: DataSource) -> str:
        """Return the region of a bucket, which is asked for once."""
        with self._lock:
            region = self._regions.get(source.bucket)
            if region is None:
                cloud = self._cloud
                region = cloud.session.get_config_variable("region") or _ANY_REGION
                answer: Any = {}
                try:
                    answer = cloud.call(
                        "s3", "head_bucket", region, Bucket=source.bucket
                    )
                except ProviderError as error:
                    # The answer to HEAD does not say why it is refused. The next call
                    # is a GET, whose answer does.
                    answer = getattr(error.__cause__, "response", None) or {}
                    if not answer:
                        raise
                headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
                region = str(headers.get("x-amz-bucket-region") or region)
                self._regions[source.bucket] = region
            return region

    def _call(
        self, source: DataSource, operation: str, words: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        with _explained(source):
            try:
                return self._cloud.call("s3", operation, self._region(source), **words)
            except ProviderError as error:
                if operation != "head_object" or errors.code(error) != "403":
                    raise
                # The answer to HEAD does not say why; that to GET does.
                words = {**words, "Range": "bytes=0-0"}
                words.pop("PartNumber", None)
                answer = self._cloud.call(
                    "s3", "get_object", self._region(source), **words
                )
                answer["Body"].close()
                raise


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
