"""Uploads to Google Cloud Storage: in one request, and resumable ones."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from tests.fakes.object_stores import checksums, gcs_json, gcs_objects, gcs_xml
from tests.fakes.object_stores.gcs_auth import Caller
from tests.fakes.object_stores.gcs_errors import GoogleError
from tests.fakes.object_stores.gcs_json import JsonCall
from tests.fakes.object_stores.gcs_state import State
from tests.fakes.object_stores.gcs_xml import XmlCall
from tests.fakes.object_stores.messages import Reply, Request
from tests.fakes.object_stores.objects import Upload, Version

_GRAIN = 256 << 10
_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")


def insert(
    state: State, address: str, request: Request, caller: Caller | None, now: float
) -> Reply:
    """Answer objects.insert of the JSON API."""
    kind = dict(request.pairs).get("uploadType", "")
    metadata, data = _parts(request, kind)
    path = request.raw_path[len("/upload") :]
    described = gcs_json.read(request, path, metadata)
    gcs_json.check_scopes(described, caller)
    call = JsonCall(state, address, request, described, caller)
    call.key = call.query.get("name") or str(metadata.get("name", ""))
    if not call.key:
        raise GoogleError(400, details="Required", reason="required")
    headers = {f"x-goog-meta-{k}": v for k, v in metadata.get("metadata", {}).items()}
    content_type = metadata.get("contentType")
    if not content_type and kind == "resumable":
        content_type = request.header("X-Upload-Content-Type")
    if not content_type and kind == "media":
        content_type = request.header("Content-Type")
    if content_type:
        headers["Content-Type"] = str(content_type)
    if metadata.get("contentEncoding"):
        headers["Content-Encoding"] = metadata["contentEncoding"]
    upload = Upload(
        secrets.token_urlsafe(64),
        call.bucket_name,
        call.key,
        gcs_objects.store_headers(headers),
        conditions={
            "match": call.query.get("ifGenerationMatch", ""),
            "none_match": call.query.get("ifGenerationNotMatch", ""),
        },
        hashes={n: str(metadata[n]) for n in ("md5Hash", "crc32c") if n in metadata},
        json_api=True,
    )
    _permit(state, caller, upload)
    if kind == "resumable":
        length = request.header("X-Upload-Content-Length")
        upload.total = int(length) if length else None
        state.uploads[upload.id] = upload
        where = f"{address}{request.raw_path}?uploadType=resumable"
        where += f"&name={quote(call.key, safe='')}&upload_id={upload.id}"
        return Reply(200, {"Location": where, "X-GUploader-UploadID": upload.id})
    upload.received += data
    return gcs_json.respond(call.query, _finish(state, address, upload, request, now))


def put(call: XmlCall, now: float) -> Reply:
    """Put an object by the XML API."""
    upload = _of_xml(call)
    _permit(call.state, call.caller, upload)
    gcs_xml.check_conditions(call)
    upload.received += call.request.body
    _finish(call.state, call.address, upload, call.request, now)
    version = call.bucket.live(call.key)
    assert version is not None
    return Reply(200, _stored(version))


def begin(call: XmlCall) -> Reply:
    """Begin a resumable upload by the XML API."""
    if call.request.header("x-goog-resumable") != "start":
        raise GoogleError(400, details="POST needs the header x-goog-resumable: start")
    if call.request.body:
        raise GoogleError(400, details="the first request has no body")
    if call.request.header("x-goog-content-length-range"):
        raise GoogleError(501, details="this fake has limits of a PUT only")
    upload = _of_xml(call)
    _permit(call.state, call.caller, upload)
    gcs_xml.check_conditions(call)
    call.state.uploads[upload.id] = upload
    where = f"{call.address}{call.request.raw_path}?upload_id={upload.id}"
    return Reply(201, {"Location": where, "X-GUploader-UploadID": upload.id})


def proceed(
    state: State, address: str, request: Request, upload_id: str, now: float
) -> Reply:
    """Answer a request to the address of a resumable upload, which needs no token."""
    upload = state.uploads.get(upload_id)
    if upload is None:
        raise GoogleError(404, details=f"No such upload: {upload_id}")
    if request.method == "DELETE":
        del state.uploads[upload_id]
        return Reply(499)
    if request.method != "PUT":
        raise GoogleError(405, f"{request.method} is not allowed")
    if upload.done is None:
        is_last = receive(upload, request)
        if not is_last:
            headers = {"X-GUploader-UploadID": upload.id}
            if upload.received:
                headers["Range"] = f"bytes=0-{len(upload.received) - 1}"
            return Reply(308, headers)
        _finish(state, address, upload, request, now)
    assert upload.done is not None
    if not upload.json_api:
        return Reply(200, _stored(upload.done))
    found = gcs_objects.resource(address, upload.bucket, upload.key, upload.done)
    return gcs_json.respond(dict(request.pairs), found)


def receive(upload: Upload, request: Request, cut: bool = False) -> bool:
    """
    Add the bytes of a request; return whether they are the last.

    Args:
        cut: Whether the connection has ended within the body: whole grains of 256 KiB
            have been stored then.

    Raises:
        GoogleError: Content-Range does not fit the upload or the body.
    """
    given = request.header("Content-Range") or f"bytes 0-*/{len(request.body)}"
    match = _RANGE.fullmatch(given.replace("0-*", f"0-{max(0, len(request.body) - 1)}"))
    if not match:
        raise _bad(f"Failed to parse Content-Range header: {given}")
    first, last, total = match.groups()
    if total != "*":
        if upload.total not in (None, int(total)):
            raise _bad(f"the size was {upload.total}, now it is {total}")
        upload.total = int(total)
    if first is None:
        if request.body:
            raise _bad("a question for the state has no body")
        return upload.total == len(upload.received)
    body, start = request.body, int(first)
    if start > len(upload.received):
        raise _bad(
            f"According to the Content-Range header, the upload offset is {start} "
            f"byte(s), which exceeds already uploaded size of {len(upload.received)} "
            "byte(s)."
        )
    end = int(last) + 1
    if cut:
        body = body[: len(body) // _GRAIN * _GRAIN]
        end = start + len(body)
    elif body and end - start != len(body):
        raise _bad(f"Content-Range is {given}, but the body has {len(body)} bytes")
    is_last = upload.total is not None and start + len(body) == upload.total
    if not is_last and not cut and len(body) % _GRAIN:
        raise _bad("a part that is not the last is a multiple of 256 KiB")
    # What has arrived before is skipped.
    upload.received += body[len(upload.received) - start :]
    return is_last


def _stored(version: Version) -> dict[str, str]:
    """Return the headers of the response to an upload."""
    return {
        name: value
        for name, value in gcs_objects.headers(version).items()
        if name == "ETag" or name.startswith("x-goog-")
    }


def _of_xml(call: XmlCall) -> Upload:
    headers = dict(call.request.headers.items())
    limits = call.request.header("x-goog-content-length-range")
    if limits:
        low, high = (int(one) for one in limits.split(","))
        size = len(call.request.body)
        if size > high:
            raise GoogleError(400, code="EntityTooLarge", details=f"{size} > {high}")
        if size < low:
            raise GoogleError(400, code="EntityTooSmall", details=f"{size} < {low}")
    return Upload(
        secrets.token_urlsafe(64),
        call.bucket_name,
        call.key,
        gcs_objects.store_headers(headers),
        conditions={"match": call.request.header("x-goog-if-generation-match")},
    )


def _permit(state: State, caller: Caller | None, upload: Upload) -> None:
    """Refuse a caller who may not create the object, or replace the present one."""
    state.permit(caller, "storage.objects.create", upload.bucket, upload.key)
    live = state.bucket(upload.bucket).live(upload.key)
    if live is not None:
        state.permit(caller, "storage.objects.delete", upload.bucket, upload.key)


def _finish(
    state: State, address: str, upload: Upload, request: Request, now: float
) -> dict[str, Any]:
    """Make the object; return its resource."""
    data, bucket = bytes(upload.received), state.bucket(upload.bucket)
    _check_hashes({**upload.hashes, **_sent_hashes(request)}, data)
    gcs_objects.check_generations(
        upload.conditions.get("match", ""),
        upload.conditions.get("none_match", ""),
        bucket.live(upload.key),
    )
    version = Version(data, "", now, headers=upload.headers)
    bucket.put(upload.key, version)
    upload.done = version
    return gcs_objects.resource(address, upload.bucket, upload.key, version)


def _sent_hashes(request: Request) -> dict[str, str]:
    """Return the checksums in the headers of a request, by the names of resources."""
    found = {}
    if request.header("Content-MD5"):
        found["md5Hash"] = request.header("Content-MD5")
    for line in request.headers.get_all("x-goog-hash", []):
        for one in str(line).split(","):
            name, _, value = one.strip().partition("=")
            found["md5Hash" if name == "md5" else name] = value
    return found


def _check_hashes(given: Mapping[str, str], data: bytes) -> None:
    for name, value in given.items():
        algorithm = {"md5Hash": "MD5", "crc32c": "CRC32C"}.get(name)
        if algorithm is None:
            raise GoogleError(400, details=f"there is no checksum {name}")
        actual = checksums.encoded(algorithm, data)
        if actual != value:
            raise GoogleError(
                400,
                code="BadDigest",
                reason="invalid",
                details=f"Provided {name} {value} doesn't match calculated {actual}.",
            )


def _parts(request: Request, kind: str) -> tuple[dict[str, Any], bytes]:
    """Return the metadata and the data of an upload's first request."""
    if kind == "media":
        return {}, request.body
    if kind == "resumable":
        return _json(request.body or b"{}"), b""
    if kind != "multipart":
        raise GoogleError(400, details=f"Invalid upload type {kind!r}")
    content_type = request.header("Content-Type")
    match = re.search(r'boundary="?([^";]+)', content_type)
    if not content_type.startswith("multipart/related") or not match:
        raise GoogleError(400, details="the body is not multipart/related")
    # The mark of the first part has no line before it.
    pieces = (b"\r\n" + request.body).split(b"\r\n--" + match[1].encode())
    if len(pieces) != 4 or pieces[3][:2] != b"--":
        raise GoogleError(400, details="the body has not two parts")
    bodies = [piece.partition(b"\r\n\r\n")[2] for piece in pieces[1:3]]
    return _json(bodies[0]), bodies[1]


def _json(raw: bytes) -> dict[str, Any]:
    try:
        found = json.loads(raw)
    except ValueError:
        raise GoogleError(400, details="Parse Error", reason="parseError") from None
    if not isinstance(found, dict):
        raise GoogleError(400, details="Parse Error", reason="parseError")
    return found


def _bad(why: str) -> GoogleError:
    return GoogleError(400, f"Invalid request.  {why}")
