"""List the objects of S3, and sign links to them, with the user's AWS configuration."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from onebox.agent.file_names import printable
from onebox.errors import InputError, NoCredentials, NotAllowed, ProviderError
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
_GONE = re.compile(r"NoSuchKey|404|NotFound")
# The codes of answers to HEAD, which have no text.
_WITHOUT_WHY = ("403", "404")
# The classes of objects that must be restored before they can be read.
_ARCHIVES = ("GLACIER", "DEEP_ARCHIVE")
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
            archived = [
                one
                for one, listed in zip(page, answer.get("Contents", ()))
                if listed.get("StorageClass") in _ARCHIVES
            ]
            if archived or (is_first and page):
                largest = max(archived or page, key=lambda one: one.size)
                self._read_first_byte(source, largest)
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
        try:
            return _listed({**self._call(source, "head_object", words), **words})
        except InputError:
            words = {"Bucket": source.bucket, "Prefix": f"{source.key}/"}
            below = self._call(source, "list_objects_v2", {**words, "MaxKeys": 1})
            if not below.get("Contents"):
                raise
        raise InputError(
            f"{source.shown} is no object, but there are objects below it",
            next=f"write {source.shown}/",
        )

    def _read_first_byte(self, source: DataSource, found: StoredObject) -> None:
        """Raise NotAllowed if the credentials may list an object, but not read it."""
        if not found.size:
            return
        words = {"Bucket": source.bucket, "Key": found.key, "Range": "bytes=0-0"}
        try:
            self._call(source, "get_object", words)["Body"].close()
        except ProviderError as error:
            if errors.code(error) != "InvalidObjectState":
                raise
            name = f"s3://{source.bucket}/{found.key}"
            raise InputError(
                f"{printable(name)} is archived, and cannot be read at once",
                next="restore it (aws s3api restore-object), or name a narrower prefix",
            ) from error

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
        with self._explained(source):
            try:
                return self._cloud.call("s3", operation, self._region(source), **words)
            except ProviderError as error:
                if operation != "head_object" or errors.code(error) not in _WITHOUT_WHY:
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
    def _explained(self, source: DataSource) -> Iterator[None]:
        """Name the address in the errors of the `with` block, and what is wrong."""
        try:
            yield
        except ProviderError as error:
            code = errors.code(error)
            if code in ("403", "AccessDenied"):
                raise self._denied(source) from error
            if code == "NoSuchBucket":
                raise InputError(
                    f"there is no bucket {source.bucket} ({source.shown})",
                    next="correct [push] data",
                ) from error
            if not _GONE.fullmatch(code):
                raise
            raise InputError(
                f"{source.shown} does not exist, or these AWS credentials may not see "
                "it",
                next="correct [push] data",
            ) from error

    def _denied(self, source: DataSource) -> NotAllowed:
        if self._cloud.has_credentials:
            return NotAllowed(
                f"{source.shown}: these AWS credentials may not read it",
                next=f"allow {_PERMISSIONS}",
            )
        return NoCredentials(
            f"{source.shown} is not public, and there are no AWS credentials",
            next="aws configure, aws sso login, or AWS_PROFILE",
        )


def _listed(found: Mapping[str, Any]) -> StoredObject:
    etag = str(found.get("ETag", "")).strip('"')
    return StoredObject(
        key=str(found["Key"]),
        size=int(found.get("Size", found.get("ContentLength", 0))),
        version=etag,
        modified=float(found["LastModified"].timestamp()),
        md5=etag if _MD5.fullmatch(etag) else "",
    )
