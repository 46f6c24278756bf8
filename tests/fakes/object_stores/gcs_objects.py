"""Objects of Google Cloud Storage: resources, headers, and responses with data."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any
from urllib.parse import quote

from tests.fakes.object_stores import ranges
from tests.fakes.object_stores.gcs_errors import GoogleError
from tests.fakes.object_stores.messages import Reply, Request
from tests.fakes.object_stores.objects import Bucket, Version


def resource(address: str, bucket: str, key: str, version: Version) -> dict[str, Any]:
    """Return the resource of an object; one without MD5 has none."""
    path = f"b/{quote(bucket, safe='')}/o/{quote(key, safe='')}"
    when = _time(version.modified)
    found: dict[str, Any] = {
        "kind": "storage#object",
        "id": f"{bucket}/{key}/{version.generation}",
        "selfLink": f"{address}/storage/v1/{path}",
        "mediaLink": f"{address}/download/storage/v1/{path}"
        f"?generation={version.generation}&alt=media",
        "name": key,
        "bucket": bucket,
        "generation": str(version.generation),
        "metageneration": "1",
        "contentType": version.headers.get("Content-Type", ""),
        "storageClass": version.storage_class,
        "size": str(version.size),
        "crc32c": base64.b64encode(version.crc32c).decode(),
        "etag": etag(version),
        "timeCreated": when,
        "updated": when,
        "timeStorageClassUpdated": when,
        "timeFinalized": when,
    }
    if version.composite:
        found["componentCount"] = max(2, len(version.parts))
    else:
        found["md5Hash"] = base64.b64encode(version.md5).decode()
    if "Content-Encoding" in version.headers:
        found["contentEncoding"] = version.headers["Content-Encoding"]
    custom = {
        name.removeprefix("x-goog-meta-"): value
        for name, value in version.headers.items()
        if name.startswith("x-goog-meta-")
    }
    return found | ({"metadata": custom} if custom else {})


def bucket_resource(address: str, bucket: Bucket) -> dict[str, Any]:
    """Return the resource of a bucket."""
    return {
        "kind": "storage#bucket",
        "id": bucket.name,
        "selfLink": f"{address}/storage/v1/b/{bucket.name}",
        "projectNumber": "123456789012",
        "name": bucket.name,
        "timeCreated": _time(0),
        "updated": _time(0),
        "metageneration": "1",
        "location": bucket.region,
        "locationType": "region" if "-" in bucket.region else "multi-region",
        "storageClass": "STANDARD",
        "etag": "CAE=",
        "versioning": {"enabled": bucket.versioned},
    }


def etag(version: Version) -> str:
    """Return the ETag of a version in the JSON API, which is no MD5."""
    raw = b"\x08" + version.generation.to_bytes(9, "little") + b"\x10\x01"
    return base64.b64encode(raw).decode()


def hash_header(version: Version) -> str:
    """Return x-goog-hash: a line for each checksum, which is a header of its own."""
    found = f"crc32c={base64.b64encode(version.crc32c).decode()}"
    if not version.composite:
        found += f"\nmd5={base64.b64encode(version.md5).decode()}"
    return found


def headers(version: Version, json_api: bool = False) -> dict[str, str]:
    """Return the headers that describe a version."""
    xml_etag = etag(version) if version.composite else version.md5.hex()
    stored = version.headers.get("Content-Encoding", "identity")
    return {
        "Last-Modified": ranges.http_date(version.modified),
        "ETag": etag(version) if json_api else f'"{xml_etag}"',
        "Accept-Ranges": "bytes",
        "x-goog-generation": str(version.generation),
        "x-goog-metageneration": "1",
        "x-goog-stored-content-encoding": stored,
        "x-goog-stored-content-length": str(version.size),
        "x-goog-hash": hash_header(version),
        "x-goog-storage-class": version.storage_class,
        **version.headers,
    }


def data(request: Request, version: Version, json_api: bool = False) -> Reply:
    """Return the response with an object's bytes, or a range of them."""
    lower = {name.lower(): str(value) for name, value in request.headers.items()}
    xml_etag = etag(version) if version.composite else version.md5.hex()
    failed = ranges.condition(lower, xml_etag, version.modified)
    if failed:
        status, header = failed
        if status == 412:
            raise GoogleError(412, details=header)
        return Reply(304, {"ETag": f'"{xml_etag}"'})
    found = headers(version, json_api)
    if version.headers.get("Content-Encoding") == "gzip" and "gzip" not in lower.get(
        "accept-encoding", ""
    ):
        return _decompressed(version, found)
    reply = Reply(200, found, version.data)
    given = ranges.parse_range(lower.get("range", ""), version.size)
    if given == "wrong":
        raise _wrong_range(lower["range"], version.size)
    if given is not None:
        reply.status, (reply.start, reply.length) = 206, given
        last = reply.start + reply.length - 1
        found["Content-Range"] = f"bytes {reply.start}-{last}/{version.size}"
    return reply


def _decompressed(version: Version, found: dict[str, str]) -> Reply:
    """
    Return the whole object without its compression, whatever the range.

    Google does this for a client that does not accept gzip: there is no length, and the
    checksums are those of the stored bytes.
    """
    del found["Content-Encoding"], found["Accept-Ranges"]
    found["ETag"] = f"W/{found['ETag']}"
    found["Warning"] = "214 UploadServer gunzipped"
    return Reply(200, found, gzip.decompress(version.read()), chunked=True)


def check_generations(
    match: str, none_match: str, live: Version | None, reads: bool = False
) -> None:
    """
    Refuse a request whose condition on the generation does not hold.

    Args:
        match: The generation that must be live, "0" for none, "" for any.

        none_match: The generation that must not be live.
    """
    present = live.generation if live is not None and not live.deleted else 0
    if match and int(match) != present:
        raise GoogleError(412)
    if none_match and int(none_match) == present:
        if reads:
            raise GoogleError(304)
        raise GoogleError(412)


def store_headers(given: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of an upload that the object keeps."""
    kept = ("content-type", "content-encoding", "cache-control", "content-disposition")
    found = {
        name.title(): value
        for name, value in ((n.lower(), str(v)) for n, v in given.items())
        if name in kept
    }
    found |= {
        name.lower(): str(value)
        for name, value in given.items()
        if name.lower().startswith("x-goog-meta-")
    }
    return {"Content-Type": "application/octet-stream", **found}


def _wrong_range(given: str, size: int) -> GoogleError:
    error = GoogleError(
        416,
        "The requested range cannot be satisfied.",
        "requestedRangeNotSatisfiable",
        "InvalidRange",
        given,
    )
    error.headers["Content-Range"] = f"bytes */{size}"
    return error


def _time(seconds: float) -> str:
    when = datetime.fromtimestamp(seconds, timezone.utc)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")
