"""The bodies of requests to S3: their chunks, checksums and documents."""

from __future__ import annotations

import base64
import binascii
import hashlib
import xml.etree.ElementTree as ET
from collections.abc import Mapping

from tests.fakes.object_stores import checksums
from tests.fakes.object_stores.s3_call import Call
from tests.fakes.object_stores.s3_errors import RefusedError

_ALGORITHMS = ("CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256", "SHA512", "MD5")
_STREAM = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"


def content(call: Call) -> tuple[bytes, str, str]:
    """
    Return the body, and the algorithm and value of its checksum, "" without one.

    Raises:
        RefusedError: A checksum of the request is not that of the body.
    """
    request = call.request
    chunked = call.get("Transfer-Encoding").lower() == "chunked"
    decoded = call.get("x-amz-decoded-content-length")
    if chunked and not decoded:
        raise RefusedError(
            501,
            "NotImplemented",
            "A header you provided implies functionality that is not implemented",
            Header="Transfer-Encoding",
        )
    if not chunked and "content-length" not in call.operation.values:
        raise RefusedError(
            411,
            "MissingContentLength",
            "You must provide the Content-Length HTTP header.",
        )
    data, given = request.body, dict(call.operation.values)
    if call.signed and call.signed.payload == _STREAM:
        data, trailers = _chunks(request.body)
        given |= trailers
        if decoded and int(decoded) != len(data):
            raise RefusedError(
                400,
                "IncompleteBody",
                "You did not provide the number of bytes specified by the "
                "Content-Length HTTP header.",
            )
    _check_md5(given.get("content-md5", ""), data)
    return (data, *_check_sum(given, data))


def read_xml(body: bytes, root: str, known: set[str]) -> ET.Element:
    """Return a document with this root and no other elements in it."""
    try:
        found = ET.fromstring(body)
    except ET.ParseError:
        raise malformed_xml() from None
    if local(found.tag) != root or any(local(one.tag) not in known for one in found):
        raise malformed_xml()
    return found


def local(tag: str) -> str:
    """Return the name of an element without its namespace."""
    return tag.rpartition("}")[2]


def malformed_xml() -> RefusedError:
    """Return the refusal of a document."""
    return RefusedError(
        400,
        "MalformedXML",
        "The XML you provided was not well-formed or did not validate against our "
        "published schema",
    )


def _chunks(body: bytes) -> tuple[bytes, dict[str, str]]:
    """Decode aws-chunked; return the bytes and the trailers."""
    found, place = bytearray(), 0
    while True:
        end = body.index(b"\r\n", place)
        size = int(body[place:end].split(b";")[0], 16)
        place = end + 2
        if not size:
            break
        found += body[place : place + size]
        place += size + 2
    trailers = {}
    for line in body[place:].decode().split("\r\n"):
        if line:
            name, _, value = line.partition(":")
            trailers[name.strip().lower()] = value.strip()
    return bytes(found), trailers


def _check_md5(given: str, data: bytes) -> None:
    if not given:
        return
    try:
        digest = base64.b64decode(given, validate=True)
    except binascii.Error:
        digest = b""
    if len(digest) != 16:
        raise RefusedError(
            400, "InvalidDigest", "The Content-MD5 you specified was invalid."
        )
    actual = hashlib.md5(data).digest()
    if digest != actual:
        raise RefusedError(
            400,
            "BadDigest",
            "The Content-MD5 you specified did not match what we received.",
            ExpectedDigest=digest.hex(),
            CalculatedDigest=base64.b64encode(actual).decode(),
        )


def _check_sum(given: Mapping[str, str], data: bytes) -> tuple[str, str]:
    prefix = "x-amz-checksum-"
    skipped = {"algorithm", "mode", "type"}
    names = [
        name[len(prefix) :]
        for name in given
        if name.startswith(prefix) and name[len(prefix) :] not in skipped
    ]
    if len(names) > 1:
        raise RefusedError(
            400,
            "InvalidRequest",
            "Expecting a single x-amz-checksum- header. Multiple checksum Types are "
            "not allowed.",
        )
    if not names:
        if given.get("x-amz-sdk-checksum-algorithm"):
            raise RefusedError(
                400,
                "InvalidRequest",
                "x-amz-sdk-checksum-algorithm specified, but no corresponding "
                "x-amz-checksum-* or x-amz-trailer headers were found.",
            )
        return "", ""
    algorithm, value = names[0].upper(), given[prefix + names[0]]
    if algorithm not in _ALGORITHMS:
        raise RefusedError(
            501, "NotImplemented", f"this fake does not compute {algorithm}"
        )
    if checksums.encoded(algorithm, data) != value:
        raise RefusedError(
            400,
            "BadDigest",
            f"The {algorithm} you specified did not match the calculated checksum.",
        )
    return algorithm, value
