"""
Read requests by the service model of S3 in AWS's own SDK.

A request that has no operation in the model, or a parameter, x-amz-* header or value
that its operation lacks, is refused. The real S3 ignores some of those.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import botocore.session
from botocore.model import OperationModel, ServiceModel

from tests.fakes.object_stores.messages import Request
from tests.fakes.object_stores.s3_errors import RefusedError

# What a request carries besides the input of its operation.
_HEADERS = {
    "x-amz-content-sha256",
    "x-amz-date",
    "x-amz-decoded-content-length",
    "x-amz-security-token",
    "x-amz-trailer",
    "x-amz-user-agent",
}
_LACKING = (
    "x-amz-object-lock-",
    "x-amz-server-side-encryption-context",
    "x-amz-server-side-encryption-customer-",
    "x-amz-tagging",
    "x-amz-website-redirect-location",
    "x-amz-write-offset-bytes",
)
_CHECKSUMS = ("crc32", "crc32c", "crc64nvme", "sha1", "sha256", "sha512", "md5")
_SIGNATURE = re.compile(
    "X-Amz-(Algorithm|Credential|Date|Expires|SignedHeaders|Signature|Security-Token)"
    "|X-Amz-Content-Sha256|x-id"
)


@dataclass(frozen=True)
class Operation:
    """
    An operation and its input.

    Attributes:
        values: The parameters by their wire names: of the query, and the headers in
            lower case, which a signed link has in the query.
    """

    name: str
    values: dict[str, str]

    def get(self, name: str, default: str = "") -> str:
        """Return a parameter or header by its wire name."""
        return self.values.get(name.lower(), default)

    def number(self, name: str, default: int, low: int = 0) -> int:
        """Return a number; raise RefusedError for a text that is none."""
        text = self.get(name, str(default))
        if not re.fullmatch("-?[0-9]+", text):
            raise _bad(f"Provided {name} not an integer or within integer range", name)
        if int(text) < low:
            raise _bad(f"Argument {name} must be an integer of at least {low}", name)
        return int(text)


def read(request: Request, has_bucket: bool, has_key: bool) -> Operation:
    """Return the operation of a request; raise RefusedError if it is not valid."""
    query = {
        name: value for name, value in request.pairs if not _SIGNATURE.fullmatch(name)
    }
    headers = {name.lower(): str(value) for name, value in request.headers.items()}
    given = {*query, *headers}
    place = "/" + ("{Bucket}" if has_bucket else "") + ("/{Key+}" if has_key else "")
    fitting = [
        (len(literal) + len(required), model)
        for model, verb, path, literal, required in _operations()
        if (verb, path) == (request.method, place)
        and literal <= set(query)
        and required <= given
    ]
    if not fitting:
        raise RefusedError(
            405,
            "MethodNotAllowed",
            "The specified method is not allowed against this resource.",
            Method=request.method,
        )
    _, model = max(fitting, key=lambda one: one[0])
    return Operation(model.name, _values(model, query, headers))


@functools.lru_cache(maxsize=1)
def _model() -> ServiceModel:
    session = botocore.session.Session()
    return session.get_service_model("s3")


@functools.lru_cache(maxsize=1)
def _operations() -> tuple[
    tuple[OperationModel, str, str, frozenset[str], frozenset[str]], ...
]:
    found = []
    for name in _model().operation_names:
        model = _model().operation_model(name)
        path, _, query = model.http["requestUri"].partition("?")
        literal = frozenset(part.split("=")[0] for part in query.split("&") if part)
        shape = model.input_shape
        required = frozenset(
            wire
            for member, place, wire, _ in _members(shape)
            if place in ("querystring", "header") and member in shape.required_members
        )
        found.append((model, model.http["method"], path, literal, required))
    return tuple(found)


def _members(shape: Any) -> Iterator[tuple[str, str, str, Any]]:
    """Yield name, location, wire name and shape of the members of an input."""
    for name, member in shape.members.items() if shape else ():
        place = member.serialization.get("location", "")
        wire = member.serialization.get("name", name)
        yield name, place, wire.lower() if place == "header" else wire, member


def _values(
    model: OperationModel, query: dict[str, str], headers: dict[str, str]
) -> dict[str, str]:
    members = {wire: shape for _, place, wire, shape in _members(model.input_shape)}
    if model.http_checksum:
        # The SDK sends one with each of these, although only some inputs have it.
        members |= {f"x-amz-checksum-{name}": None for name in _CHECKSUMS}
    in_query = {
        wire for _, p, wire, _ in _members(model.input_shape) if p == "querystring"
    }
    literal = model.http["requestUri"].partition("?")[2]
    in_query |= {part.split("=")[0] for part in literal.split("&")}
    values = {}
    for name, value in query.items():
        lower = name.lower()
        if name not in in_query and not (
            lower.startswith("x-amz-") and _known(lower, members)
        ):
            raise _bad(f"{model.name} has no parameter {name}", name)
        values[lower] = value
    for name, value in headers.items():
        if name.startswith("x-amz-") and not _known(name, members):
            raise _bad(f"{model.name} has no header {name}", name)
        values[name] = value
    _check_supported(values)
    for name, shape in members.items():
        options = getattr(shape, "enum", None)
        value = values.get(name.lower(), "")
        if options and value and value not in options:
            raise _bad(f"Invalid value {value!r} for {name}", name)
    return values


def _check_supported(values: dict[str, str]) -> None:
    """Refuse what this fake lacks, and the ACLs that new buckets do not have."""
    acl = values.get("x-amz-acl", "bucket-owner-full-control")
    grants = [name for name in values if name.startswith("x-amz-grant-")]
    if grants or acl != "bucket-owner-full-control":
        raise RefusedError(
            400, "AccessControlListNotSupported", "The bucket does not allow ACLs"
        )
    lacking = [name for name in values if name.startswith(_LACKING)]
    if lacking:
        raise RefusedError(501, "NotImplemented", f"this fake has no {lacking[0]}")


def _known(name: str, members: dict[str, Any]) -> bool:
    return name in members or name in _HEADERS or name.startswith("x-amz-meta-")


def _bad(message: str, name: str) -> RefusedError:
    return RefusedError(400, "InvalidArgument", message, ArgumentName=name)
