"""The XML API of Google Cloud Storage, which signed links use."""

from __future__ import annotations

from dataclasses import dataclass

from tests.fakes.object_stores import gcs_objects
from tests.fakes.object_stores.gcs_auth import Caller
from tests.fakes.object_stores.gcs_errors import GoogleError
from tests.fakes.object_stores.gcs_state import State
from tests.fakes.object_stores.messages import Reply, Request
from tests.fakes.object_stores.objects import Bucket

# The parameters of an object, beside those of the signature.
_PARAMETERS = {
    "generation",
    "upload_id",
    "response-content-type",
    "response-content-disposition",
}

_HEADERS = {
    "x-goog-api-client",
    "x-goog-content-length-range",
    "x-goog-content-sha256",
    "x-goog-hash",
    "x-goog-if-generation-match",
    "x-goog-resumable",
}


@dataclass(frozen=True)
class XmlCall:
    """A request for one object."""

    state: State
    address: str
    request: Request
    caller: Caller | None
    bucket_name: str
    key: str

    @property
    def bucket(self) -> Bucket:
        """The bucket, which exists."""
        return self.state.bucket(self.bucket_name)

    def get(self, name: str) -> str:
        """Return a parameter of the query, "" without it."""
        return dict(self.request.pairs).get(name, "")

    def permit(self, permission: str) -> None:
        """Raise GoogleError if the caller lacks a permission."""
        self.state.permit(self.caller, permission, self.bucket_name, self.key)


def check_parameters(request: Request) -> None:
    """Refuse a parameter or header that objects do not have, or this fake lacks."""
    for name, _ in request.pairs:
        if name not in _PARAMETERS and not name.startswith("X-Goog-"):
            raise GoogleError(400, details=f"objects have no parameter {name}")
    for name in request.headers:
        lower = name.lower()
        if lower.startswith("x-goog-") and not (
            lower in _HEADERS or lower.startswith("x-goog-meta-")
        ):
            raise GoogleError(501, details=f"this fake has no header {name}")


def get(call: XmlCall) -> Reply:
    """Return an object's bytes, or a range of them; for HEAD, the headers."""
    call.permit("storage.objects.get")
    version = call.state.version(
        call.caller, call.bucket_name, call.key, call.get("generation")
    )
    check_conditions(call, reads=True)
    reply = gcs_objects.data(call.request, version)
    for name in ("content-type", "content-disposition"):
        if call.get(f"response-{name}"):
            reply.headers[name.title()] = call.get(f"response-{name}")
    return reply


def delete(call: XmlCall) -> Reply:
    """Delete the live version, or one generation."""
    call.permit("storage.objects.delete")
    version = call.state.version(
        call.caller, call.bucket_name, call.key, call.get("generation")
    )
    check_conditions(call)
    call.bucket.remove(call.key, version)
    return Reply(204)


def check_conditions(call: XmlCall, reads: bool = False) -> None:
    """Refuse a request whose x-goog-if-generation-match does not hold."""
    match = call.request.header("x-goog-if-generation-match")
    if match and not match.isdigit():
        raise GoogleError(400, details=f"x-goog-if-generation-match is {match!r}")
    gcs_objects.check_generations(match, "", call.bucket.live(call.key), reads)
