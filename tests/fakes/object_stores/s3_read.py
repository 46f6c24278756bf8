"""The operations of S3 that read."""

from __future__ import annotations

import base64
import hashlib
from typing import Callable
from urllib.parse import quote_plus

from tests.fakes.object_stores import ranges
from tests.fakes.object_stores.messages import Reply
from tests.fakes.object_stores.objects import Version
from tests.fakes.object_stores.s3_call import OWNER, Call, checksum_headers, metadata
from tests.fakes.object_stores.s3_errors import RefusedError, iso, no_key, text, xml

_NAMESPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
_MOST = 1000
_ARCHIVED = ("GLACIER", "DEEP_ARCHIVE")


def get_object(call: Call) -> Reply:
    """Return an object, a range or a part of it."""
    version_id = call.get("versionId")
    call.permit("s3:GetObjectVersion" if version_id else "s3:GetObject", call.key)
    version = _version(call, version_id)
    if version.headers.get("x-amz-server-side-encryption") == "aws:kms":
        call.permit("kms:Decrypt", call.key)
    failed = ranges.condition(call.operation.values, version.etag, version.modified)
    if failed:
        return _precondition(version, *failed)
    if version.storage_class in _ARCHIVED and call.request.method == "GET":
        raise RefusedError(
            403,
            "InvalidObjectState",
            "The operation is not valid for the object's storage class",
            StorageClass=version.storage_class,
        )
    headers = {
        "Last-Modified": ranges.http_date(version.modified),
        **metadata(version),
    }
    for name, value in call.operation.values.items():
        if name.startswith("response-"):
            # Anyone could make the store send what they like.
            if call.signed is None:
                raise RefusedError(
                    400,
                    "InvalidRequest",
                    "Request specific response headers cannot be used for anonymous "
                    "GET requests.",
                )
            headers[name.removeprefix("response-").title()] = value
    reply = Reply(200, headers, version.data)
    part = call.get("partNumber")
    if part:
        _part(call, version, reply)
    elif call.get("Range"):
        _range(call, version, reply)
    if reply.status == 200 and call.get("x-amz-checksum-mode") == "ENABLED":
        headers.update(checksum_headers(version))
    return reply


def list_objects(call: Call) -> Reply:
    """Return a page of the current objects."""
    call.permit("s3:ListBucket")
    prefix, delimiter = call.get("prefix"), call.get("delimiter")
    limit = min(call.operation.number("max-keys", _MOST), _MOST)
    token, start_after = call.get("continuation-token"), call.get("start-after")
    after = _token(token) if token else start_after
    if "continuation-token" in call.operation.values and not token:
        raise RefusedError(
            400, "InvalidArgument", "The continuation token provided is incorrect"
        )
    page = call.bucket.page(prefix, after, delimiter, limit)
    encode = _encoder(call)
    last = page.last if limit else ""
    fields = {
        "Name": call.bucket_name,
        "Prefix": encode(prefix),
        "KeyCount": str(len(page.items) + len(page.prefixes)),
        "MaxKeys": str(limit),
        "IsTruncated": "true" if last else "false",
    }
    for name, value in (
        ("Delimiter", encode(delimiter)),
        ("EncodingType", call.get("encoding-type")),
        ("StartAfter", encode(start_after)),
        ("ContinuationToken", token),
        ("NextContinuationToken", _next(last) if last else ""),
    ):
        if value:
            fields[name] = text(value)
    owner = f"<Owner><ID>{OWNER}</ID></Owner>"
    with_owner = owner if call.get("fetch-owner") == "true" else ""
    parts = [f"<{name}>{value}</{name}>" for name, value in fields.items()]
    parts += [
        f"<Contents><Key>{encode(key)}</Key>{_entry(one)}{with_owner}</Contents>"
        for key, one in page.items
    ]
    parts += [
        f"<CommonPrefixes><Prefix>{encode(one)}</Prefix></CommonPrefixes>"
        for one in page.prefixes
    ]
    return xml(f"<ListBucketResult {_NAMESPACE}>{''.join(parts)}</ListBucketResult>")


def head_bucket(call: Call) -> Reply:
    """Return whether the bucket exists, and its region."""
    call.permit("s3:ListBucket")
    return Reply(200, {"Content-Type": "application/xml"})


def get_location(call: Call) -> Reply:
    """Return the region; us-east-1 is an empty element."""
    call.permit("s3:GetBucketLocation")
    region = call.bucket.region
    inner = "" if region == "us-east-1" else region
    return xml(f"<LocationConstraint {_NAMESPACE}>{inner}</LocationConstraint>")


def get_versioning(call: Call) -> Reply:
    """Return whether the bucket keeps old versions."""
    call.permit("s3:GetBucketVersioning")
    inner = "<Status>Enabled</Status>" if call.bucket.versioned else ""
    kind = "VersioningConfiguration"
    return xml(f"<{kind} {_NAMESPACE}>{inner}</{kind}>")


def list_buckets(call: Call) -> Reply:
    """Return all buckets."""
    call.permit("s3:ListAllMyBuckets")
    inner = "".join(
        f"<Bucket><Name>{one.name}</Name><CreationDate>{iso(0)}</CreationDate>"
        f"<BucketRegion>{one.region}</BucketRegion></Bucket>"
        for one in call.account.buckets.values()
    )
    return xml(
        f"<ListAllMyBucketsResult {_NAMESPACE}><Owner><ID>{OWNER}</ID></Owner>"
        f"<Buckets>{inner}</Buckets></ListAllMyBucketsResult>"
    )


def _version(call: Call, version_id: str) -> Version:
    """Return the version that a call is for."""
    if not version_id:
        found = call.bucket.live(call.key)
        if found is None or found.deleted:
            error = call.missing(no_key(call.key))
            if found is not None:
                error.headers["x-amz-delete-marker"] = "true"
            raise error
        return found
    found = call.bucket.version(call.key, version_id=version_id)
    if found is None:
        raise RefusedError(
            404,
            "NoSuchVersion",
            "The specified version does not exist.",
            Key=call.key,
            VersionId=version_id,
        )
    if found.deleted:
        error = RefusedError(
            405,
            "MethodNotAllowed",
            "The specified method is not allowed against this resource.",
            Method=call.request.method,
            ResourceType="DeleteMarker",
        )
        error.headers["x-amz-delete-marker"] = "true"
        raise error
    return found


def _precondition(version: Version, status: int, header: str) -> Reply:
    if status == 304:
        return Reply(
            304,
            {
                "ETag": f'"{version.etag}"',
                "Last-Modified": ranges.http_date(version.modified),
            },
        )
    raise RefusedError(
        412,
        "PreconditionFailed",
        "At least one of the pre-conditions you specified did not hold",
        Condition=header,
    )


def _range(call: Call, version: Version, reply: Reply) -> None:
    found = ranges.parse_range(call.get("Range"), version.size)
    if found == "wrong":
        error = RefusedError(
            416,
            "InvalidRange",
            "The requested range is not satisfiable",
            RangeRequested=call.get("Range"),
            ActualObjectSize=version.size,
        )
        error.headers["Content-Range"] = f"bytes */{version.size}"
        raise error
    if found is not None:
        _partial(reply, version.size, *found)


def _partial(reply: Reply, size: int, start: int, count: int) -> None:
    reply.status, reply.start, reply.length = 206, start, count
    reply.headers["Content-Range"] = f"bytes {start}-{start + count - 1}/{size}"


def _part(call: Call, version: Version, reply: Reply) -> None:
    if call.get("Range"):
        raise RefusedError(
            400,
            "InvalidRequest",
            "Cannot specify both Range header and partNumber query parameter",
        )
    number = call.operation.number("partNumber", 1, low=1)
    sizes = version.parts or (version.size,)
    if number > len(sizes):
        raise RefusedError(
            416,
            "InvalidPartNumber",
            "The requested partnumber is not satisfiable",
            PartNumberRequested=number,
            ActualPartCount=len(sizes),
        )
    if version.parts:
        reply.headers["x-amz-mp-parts-count"] = str(len(sizes))
    if version.size:
        start = sum(sizes[: number - 1])
        _partial(reply, version.size, start, sizes[number - 1])


def _entry(version: Version) -> str:
    """Return the elements of one object in a list."""
    found = (
        f"<LastModified>{iso(version.modified)[:-1]}.000Z</LastModified>"
        f"<ETag>&quot;{version.etag}&quot;</ETag>"
    )
    if version.algorithm:
        found += f"<ChecksumAlgorithm>{version.algorithm}</ChecksumAlgorithm>"
        found += f"<ChecksumType>{version.checksum_type}</ChecksumType>"
    return (
        f"{found}<Size>{version.size}</Size>"
        f"<StorageClass>{version.storage_class}</StorageClass>"
    )


def _encoder(call: Call) -> Callable[[str], str]:
    """Return the function that writes a key into the document."""
    if call.get("encoding-type") == "url":
        return lambda key: quote_plus(key, safe="/*-._")
    return text


def _next(last: str) -> str:
    """Return an opaque token that continues after a key."""
    raw = last.encode()
    return base64.b64encode(hashlib.sha256(raw).digest()[:4] + raw).decode()


def _token(token: str) -> str:
    """Return the key after which a token continues; raise for a made-up token."""
    try:
        raw = base64.b64decode(token, validate=True)
        if raw[:4] == hashlib.sha256(raw[4:]).digest()[:4]:
            return raw[4:].decode()
    except ValueError:
        pass
    raise RefusedError(
        400, "InvalidArgument", "The continuation token provided is incorrect"
    )


HANDLERS: dict[str, Callable[[Call], Reply]] = {
    "GetObject": get_object,
    "HeadObject": get_object,
    "ListObjectsV2": list_objects,
    "HeadBucket": head_bucket,
    "GetBucketLocation": get_location,
    "GetBucketVersioning": get_versioning,
    "ListBuckets": list_buckets,
}
