"""Uploads by a form of HTML, whose policy is signed."""

from __future__ import annotations

import base64
import email.parser
import email.policy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tests.fakes.object_stores import s3_write
from tests.fakes.object_stores.messages import Reply, Request
from tests.fakes.object_stores.s3_call import Account, permit
from tests.fakes.object_stores.s3_errors import RefusedError, text, xml
from tests.fakes.object_stores.sigv4 import check_form

# The fields that the policy need not name.
_FREE = {"file", "policy", "x-amz-signature", "awsaccesskeyid", "signature"}
# What a form may say about the object; the real S3 ignores other fields.
_KNOWN = {
    "acl",
    "bucket",
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-type",
    "expires",
    "key",
    "success_action_redirect",
    "success_action_status",
    "tagging",
}


@dataclass(frozen=True)
class Form:
    """
    A form.

    Attributes:
        fields: The fields before the file, in lower case.
    """

    fields: Mapping[str, str]
    filename: str
    data: bytes


def is_form(request: Request) -> bool:
    """Return whether a request is a form with a file."""
    kind = request.header("Content-Type")
    return request.method == "POST" and kind.startswith("multipart/form-data")


def post(account: Account, request: Request, bucket: str) -> Reply:
    """Put the file of a form."""
    form = read(request)
    place = account.buckets[bucket]
    now = account.now()
    fields = {**form.fields, "bucket": bucket}
    credential = check_form(fields, account.credentials, place.region, now)
    _check_policy(fields, len(form.data), now)
    key = fields["key"].replace("${filename}", form.filename)
    permit(account, credential, "s3:PutObject", bucket, key)
    kept = {
        name.title() if name == "content-type" else name: value
        for name, value in fields.items()
        if name.startswith(("x-amz-meta-", "content-", "cache-", "expires"))
    }
    version = s3_write.make(
        form.data,
        now,
        kms=fields.get("x-amz-server-side-encryption") == "aws:kms",
        headers={"Content-Type": "binary/octet-stream", **kept},
        storage_class=fields.get("x-amz-storage-class", "STANDARD"),
        versioned=place.versioned,
    )
    place.put(key, version)
    status = int(fields.get("success_action_status", "204"))
    reply = Reply(status if status in (200, 201, 204) else 204)
    if status == 201:
        reply = xml(
            f"<PostResponse><Bucket>{bucket}</Bucket><Key>{text(key)}</Key>"
            f"<ETag>&quot;{version.etag}&quot;</ETag></PostResponse>",
            201,
        )
    reply.headers.update(s3_write.described(version, checksum=False))
    return reply


def read(request: Request) -> Form:
    """Return the form of a request; what comes after the file is ignored."""
    if "content-length" not in {name.lower() for name in request.headers}:
        raise RefusedError(
            411,
            "MissingContentLength",
            "You must provide the Content-Length HTTP header.",
        )
    head = f"Content-Type: {request.header('Content-Type')}\r\n\r\n".encode()
    parser = email.parser.BytesParser(policy=email.policy.HTTP)
    message = parser.parsebytes(head + request.body)
    fields: dict[str, str] = {}
    for part in message.iter_parts() if message.is_multipart() else ():
        disposition: Any = part["Content-Disposition"]
        name = str(disposition.params["name"]) if disposition else ""
        payload = part.get_payload(decode=True)
        assert isinstance(payload, bytes)
        if name.lower() == "file":
            filename = str(disposition.params.get("filename", ""))
            return Form(fields, filename, _data(request))
        if name:
            fields[name.lower()] = payload.decode()
    raise RefusedError(
        400,
        "InvalidArgument",
        "POST requires exactly one file upload per request.",
        ArgumentName="file",
    )


def _data(request: Request) -> bytes:
    """Return the bytes of the file, which the parser for mail would change."""
    boundary = request.header("Content-Type").partition("boundary=")[2].strip('"')
    mark = b"--" + boundary.encode()
    for part in request.body.split(mark)[1:]:
        head, _, data = part.partition(b"\r\n\r\n")
        if b'name="file"' in head:
            # The bytes of a file do not contain the boundary.
            return data.removesuffix(b"\r\n")
    return b""


def _check_policy(fields: Mapping[str, str], size: int, now: float) -> None:
    try:
        policy = json.loads(base64.b64decode(fields["policy"], validate=True))
        conditions = [_condition(one) for one in policy["conditions"]]
        end = datetime.fromisoformat(policy["expiration"].replace("Z", "+00:00"))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise RefusedError(
            400, "InvalidPolicyDocument", "Invalid Policy: Invalid JSON."
        ) from None
    if now > end.timestamp():
        raise _against("Policy expired.")
    if "key" not in fields:
        raise RefusedError(
            400,
            "InvalidArgument",
            "Bucket POST must contain a field named 'key'.  If it is specified, please "
            "check the order of the fields.",
            ArgumentName="key",
        )
    named = set()
    for operator, name, value in conditions:
        if operator == "content-length-range":
            _check_length(size, int(name), int(value))
            continue
        named.add(name)
        given = fields.get(name, "")
        holds = given.startswith(value) if operator == "starts-with" else given == value
        if not holds:
            raise _against(
                f'Policy Condition failed: ["{operator}", "${name}", "{value}"]'
            )
    for name in fields:
        if name.startswith("x-ignore-") or name in _FREE or name == "bucket":
            continue
        if name not in named:
            raise _against(f"Extra input fields: {name}")
        if name not in _KNOWN and not name.startswith("x-amz-"):
            raise RefusedError(
                400, "InvalidArgument", f"a form has no field {name}", ArgumentName=name
            )
    if "bucket" not in named:
        raise _against("Extra input fields: bucket")


def _condition(one: Any) -> tuple[str, str, str]:
    """Return operator, field and value of a condition."""
    if isinstance(one, dict):
        ((name, value),) = one.items()
        return "eq", str(name).lower(), str(value)
    operator, name, value = one
    if operator == "content-length-range":
        return operator, str(int(name)), str(int(value))
    if operator not in ("eq", "starts-with") or not name.startswith("$"):
        raise ValueError(operator)
    return operator, str(name[1:]).lower(), str(value)


def _check_length(size: int, low: int, high: int) -> None:
    if size > high:
        raise RefusedError(
            400,
            "EntityTooLarge",
            "Your proposed upload exceeds the maximum allowed size",
            ProposedSize=size,
            MaxSizeAllowed=high,
        )
    if size < low:
        raise RefusedError(
            400,
            "EntityTooSmall",
            "Your proposed upload is smaller than the minimum allowed size",
            ProposedSize=size,
            MinSizeAllowed=low,
        )


def _against(why: str) -> RefusedError:
    return RefusedError(403, "AccessDenied", f"Invalid according to Policy: {why}")
