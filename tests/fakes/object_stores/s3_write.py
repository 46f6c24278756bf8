"""The operations of S3 that write or delete single objects."""

from __future__ import annotations

import hashlib
import itertools
import secrets
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from typing import Callable

from tests.fakes.object_stores import checksums
from tests.fakes.object_stores.messages import Reply
from tests.fakes.object_stores.objects import Data, Version, blocks, md5
from tests.fakes.object_stores.s3_body import content, local, malformed_xml, read_xml
from tests.fakes.object_stores.s3_call import Call, checksum_headers
from tests.fakes.object_stores.s3_errors import RefusedError, no_key, text, xml

DEFAULT = "CRC64NVME"
_QUICK = 1 << 20
_KEPT = (
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-type",
    "expires",
    "x-amz-server-side-encryption",
    "x-amz-server-side-encryption-aws-kms-key-id",
)


def make(
    data: Data,
    modified: float,
    *,
    parts: tuple[int, ...] = (),
    kms: bool = False,
    algorithm: str = DEFAULT,
    composite: bool = False,
    headers: Mapping[str, str],
    storage_class: str = "STANDARD",
    versioned: bool = False,
) -> Version:
    """
    Return a version with the ETag and checksum that S3 gives it.

    Args:
        composite: Whether the checksum is that of the parts' checksums.
    """
    encryption = "aws:kms" if kms else "AES256"
    places = list(zip(itertools.accumulate(parts, initial=0), parts))
    if kms:
        etag = secrets.token_hex(16) + (f"-{len(parts)}" if parts else "")
    elif parts:
        joined = b"".join(md5(data, *place) for place in places)
        etag = f"{hashlib.md5(joined).hexdigest()}-{len(parts)}"
    else:
        etag = md5(data).hex()
    total = ""
    if algorithm and composite:
        joined = b"".join(
            checksums.checksum(algorithm, b"".join(blocks(data, *place)))
            for place in places
        )
        total = f"{checksums.encoded(algorithm, joined)}-{len(parts)}"
    version = Version(
        data,
        etag,
        modified,
        parts,
        {"x-amz-server-side-encryption": encryption, **headers},
        algorithm,
        total,
        storage_class=storage_class,
        version_id=secrets.token_urlsafe(24) if versioned else "null",
    )
    assert not parts or sum(parts) == version.size, "the parts are not the object"
    return version


def put_object(call: Call) -> Reply:
    """Put an object."""
    call.permit("s3:PutObject", call.key)
    data, algorithm, _ = content(call)
    check_size(call, len(data))
    check_conditions(call)
    version = make(
        data,
        call.account.now(),
        kms=call.get("x-amz-server-side-encryption") == "aws:kms",
        algorithm=algorithm or DEFAULT,
        headers=kept(call),
        storage_class=call.get("x-amz-storage-class", "STANDARD"),
        versioned=call.bucket.versioned,
    )
    call.bucket.put(call.key, version)
    # S3 returns its own checksum also of a large object; here it takes seconds.
    return Reply(200, described(version, bool(algorithm) or len(data) <= _QUICK))


def delete_object(call: Call) -> Reply:
    """Delete an object, or one version; a key that does not exist is no error."""
    return Reply(204, _delete(call, call.key, call.get("versionId")))


def delete_objects(call: Call) -> Reply:
    """Delete up to 1,000 objects."""
    body, algorithm, _ = content(call)
    if not algorithm and not call.get("Content-MD5"):
        raise RefusedError(
            400,
            "InvalidRequest",
            "Missing required header for this request: Content-MD5 OR x-amz-checksum-*",
        )
    root = read_xml(body, "Delete", {"Object", "Quiet"})
    entries = [one for one in root if local(one.tag) == "Object"]
    if not 0 < len(entries) <= 1000:
        raise malformed_xml()
    inner = ""
    for entry in entries:
        fields = {local(one.tag): one.text or "" for one in entry}
        name = f"<Key>{text(fields['Key'])}</Key>"
        try:
            _delete(call, fields["Key"], fields.get("VersionId", ""))
        except RefusedError as error:
            inner += (
                f"<Error>{name}<Code>{error.code}</Code>"
                f"<Message>{text(error.message)}</Message></Error>"
            )
        else:
            if not any(local(o.tag) == "Quiet" and o.text == "true" for o in root):
                inner += f"<Deleted>{name}</Deleted>"
    return xml(f"<DeleteResult>{inner}</DeleteResult>")


def create_bucket(call: Call) -> Reply:
    """Create a bucket in the region of the body."""
    call.permit("s3:CreateBucket")
    region = "us-east-1"
    if call.request.body:
        for one in ET.fromstring(call.request.body):
            if local(one.tag) == "LocationConstraint":
                region = one.text or ""
    if call.bucket_name in call.account.buckets:
        raise RefusedError(
            409,
            "BucketAlreadyOwnedByYou",
            "Your previous request to create the named bucket succeeded and you "
            "already own it.",
            BucketName=call.bucket_name,
        )
    call.account.create_bucket(call.bucket_name, region)
    return Reply(200, {"Location": f"/{call.bucket_name}"})


def check_size(call: Call, size: int) -> None:
    """Refuse more bytes than one request may have."""
    if size > call.account.max_put:
        raise RefusedError(
            400,
            "EntityTooLarge",
            "Your proposed upload exceeds the maximum allowed size",
            ProposedSize=size,
            MaxSizeAllowed=call.account.max_put,
        )


def check_conditions(call: Call) -> None:
    """Refuse to replace an object that If-None-Match or If-Match protects."""
    live = call.bucket.live(call.key)
    exists = live is not None and not live.deleted
    none_match, match = call.get("If-None-Match"), call.get("If-Match")
    failed = ""
    if none_match:
        if none_match != "*":
            raise RefusedError(
                501,
                "NotImplemented",
                "A header you provided implies functionality that is not implemented",
                Header="If-None-Match",
            )
        failed = "If-None-Match" if exists else ""
    if match:
        if live is None or live.deleted:
            raise no_key(call.key)
        failed = "" if match.strip('"') == live.etag else "If-Match"
    if failed:
        raise RefusedError(
            412,
            "PreconditionFailed",
            "At least one of the pre-conditions you specified did not hold",
            Condition=failed,
        )


def kept(call: Call) -> dict[str, str]:
    """Return the headers of a request that the object keeps."""
    found = {"Content-Type": "binary/octet-stream"}
    for name, value in call.operation.values.items():
        if name == "content-encoding":
            parts = [one.strip() for one in value.split(",")]
            value = ",".join(one for one in parts if one != "aws-chunked")
        if value and (name in _KEPT or name.startswith("x-amz-meta-")):
            found["Content-Type" if name == "content-type" else name] = value
    return found


def described(version: Version, checksum: bool = True) -> dict[str, str]:
    """Return the headers of the response to an upload."""
    found = {"ETag": f'"{version.etag}"'}
    name = "x-amz-server-side-encryption"
    if name in version.headers:
        found[name] = version.headers[name]
    if version.version_id != "null":
        found["x-amz-version-id"] = version.version_id
    return found | (checksum_headers(version) if checksum else {})


def _delete(call: Call, key: str, version_id: str) -> dict[str, str]:
    """Delete an object or version; return the headers of the response."""
    action = "s3:DeleteObjectVersion" if version_id else "s3:DeleteObject"
    call.permit(action, key)
    bucket = call.bucket
    if version_id:
        version = bucket.version(key, version_id=version_id)
        if version is not None:
            bucket.remove(key, version)
        return {"x-amz-version-id": version_id}
    if not bucket.versioned:
        bucket.remove(key)
        return {}
    marker = Version(
        b"",
        "",
        call.account.now(),
        deleted=True,
        version_id=secrets.token_urlsafe(24),
    )
    bucket.put(key, marker)
    return {"x-amz-delete-marker": "true", "x-amz-version-id": marker.version_id}


HANDLERS: dict[str, Callable[[Call], Reply]] = {
    "PutObject": put_object,
    "DeleteObject": delete_object,
    "DeleteObjects": delete_objects,
    "CreateBucket": create_bucket,
}
