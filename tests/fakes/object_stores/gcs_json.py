"""The JSON API of Google Cloud Storage: what it reads and deletes."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, Callable
from urllib.parse import parse_qs

from tests.fakes.gcp import schema
from tests.fakes.object_stores import gcs_fields, gcs_objects
from tests.fakes.object_stores.gcs_auth import Caller
from tests.fakes.object_stores.gcs_errors import GoogleError
from tests.fakes.object_stores.gcs_state import State
from tests.fakes.object_stores.messages import Reply, Request
from tests.fakes.object_stores.objects import Bucket, Version

_MOST = 1000
_LACKING = {
    "contentEncoding",
    "filter",
    "ifMetagenerationMatch",
    "ifMetagenerationNotMatch",
    "kmsKeyName",
    "restoreToken",
    "userProject",
}
Handler = Callable[["JsonCall"], Any]


class JsonCall:
    """A call that matches Google's description, and its caller."""

    def __init__(
        self,
        state: State,
        address: str,
        request: Request,
        call: schema.Call,
        caller: Caller | None,
    ) -> None:
        self.state, self.address, self.request = state, address, request
        self.method, self.query, self.caller = call.method, call.query, caller
        self.body = call.body
        self.bucket_name = call.path["bucket"]
        self.key = call.path.get("object", "")

    @property
    def bucket(self) -> Bucket:
        """The bucket, which exists."""
        return self.state.bucket(self.bucket_name)

    def permit(self, permission: str) -> None:
        """Raise GoogleError if the caller lacks a permission."""
        key = self.key if ".objects." in permission else ""
        self.state.permit(self.caller, permission, self.bucket_name, key)

    def resource(self, key: str, version: Version) -> dict[str, Any]:
        """Return the resource of an object of the bucket."""
        return gcs_objects.resource(self.address, self.bucket_name, key, version)


def read(request: Request, path: str, body: Any) -> schema.Call:
    """Return the described call of a request; raise GoogleError for another one."""
    query = parse_qs(request.raw_query, keep_blank_values=True)
    query.pop("upload_id", None)
    try:
        call = schema.read(request.method, path, query, body, schema.STORAGE)
    except schema.RefusedError as refused:
        raise GoogleError(400, details=str(refused), reason="invalid") from None
    check_supported(call)
    return call


def check_supported(call: schema.Call) -> None:
    """Refuse what this fake lacks, and the ACLs that new buckets do not have."""
    if "predefinedAcl" in call.query:
        raise GoogleError(
            400,
            details="Cannot use predefined ACL when uniform bucket-level access is "
            "enabled.",
            reason="invalid",
        )
    lacking = sorted(_LACKING & set(call.query))
    if lacking:
        raise GoogleError(501, details=f"this fake has no parameter {lacking[0]}")


def check_scopes(call: schema.Call, caller: Caller | None) -> None:
    """Refuse a token without a scope that the method needs."""
    if caller and not caller.scopes & schema.scopes(schema.STORAGE, call.method):
        raise GoogleError(403, details="Provided scope(s) are not authorized")


def answer(call: JsonCall) -> Reply:
    """Answer a call."""
    handler = HANDLERS.get(call.method)
    if handler is None:
        raise GoogleError(501, details=f"this fake has no {call.method}")
    found = handler(call)
    if isinstance(found, Reply):
        return found
    return respond(call.query, found)


def respond(query: Mapping[str, str], found: Any) -> Reply:
    """Return a response with the fields that the caller has chosen."""
    fields = query.get("fields")
    if fields:
        kind = found["kind"].partition("#")[2]
        shape = {"object": "Object", "objects": "Objects", "bucket": "Bucket"}
        found = gcs_fields.select(found, fields, shape.get(kind, kind))
    headers = {"Content-Type": "application/json; charset=UTF-8"}
    return Reply(200, headers, json.dumps(found).encode())


def objects_get(call: JsonCall) -> Any:
    """Return an object's resource, or with alt=media its bytes."""
    call.permit("storage.objects.get")
    version = call.state.version(
        call.caller, call.bucket_name, call.key, call.query.get("generation", "")
    )
    gcs_objects.check_generations(
        call.query.get("ifGenerationMatch", ""),
        call.query.get("ifGenerationNotMatch", ""),
        version,
        reads=True,
    )
    if call.query.get("alt") == "media":
        return gcs_objects.data(call.request, version, json_api=True)
    return call.resource(call.key, version)


def objects_list(call: JsonCall) -> Any:
    """Return a page of the live objects."""
    query = call.query
    call.permit("storage.objects.list")
    bucket = call.bucket
    for name in ("versions", "matchGlob", "softDeleted", "endOffset"):
        if query.get(name, "false") != "false":
            raise GoogleError(501, details=f"this fake has no parameter {name}")
    limit = min(int(query.get("maxResults", _MOST)), _MOST) or _MOST
    page = bucket.page(
        query.get("prefix", ""),
        _after(query["pageToken"]) if "pageToken" in query else "",
        query.get("delimiter", ""),
        limit,
        query.get("startOffset", ""),
    )
    found: dict[str, Any] = {"kind": "storage#objects"}
    if page.last:
        token = base64.urlsafe_b64encode(b"\x0a" + page.last.encode()).decode()
        found["nextPageToken"] = token
    # Google leaves out what is empty.
    if page.prefixes:
        found["prefixes"] = page.prefixes
    if page.items:
        found["items"] = [call.resource(key, one) for key, one in page.items]
    return found


def objects_delete(call: JsonCall) -> Reply:
    """Delete the live version, or one generation."""
    call.permit("storage.objects.delete")
    wanted = call.query.get("generation", "")
    version = call.state.version(call.caller, call.bucket_name, call.key, wanted)
    gcs_objects.check_generations(
        call.query.get("ifGenerationMatch", ""),
        call.query.get("ifGenerationNotMatch", ""),
        version,
    )
    call.bucket.remove(call.key, version)
    return Reply(204)


def buckets_get(call: JsonCall) -> Any:
    """Return a bucket's resource."""
    if call.bucket_name in call.state.buckets or call.caller is None:
        call.permit("storage.buckets.get")
    return gcs_objects.bucket_resource(call.address, call.bucket)


def test_permissions(call: JsonCall) -> Any:
    """Return those of the permissions that the caller has."""
    found = []
    wanted = [value for name, value in call.request.pairs if name == "permissions"]
    assert call.bucket
    for permission in wanted:
        try:
            call.permit(permission)
        except GoogleError:
            continue
        found.append(permission)
    answer: dict[str, Any] = {"kind": "storage#testIamPermissionsResponse"}
    return answer | ({"permissions": found} if found else {})


def _after(token: str) -> str:
    try:
        raw = base64.b64decode(token, b"-_", validate=True)
        if raw[:1] == b"\x0a":
            return raw[1:].decode()
    except ValueError:
        pass
    raise GoogleError(400, details="Invalid page token", reason="invalid")


HANDLERS: dict[str, Handler] = {
    "storage.objects.get": objects_get,
    "storage.objects.list": objects_list,
    "storage.objects.delete": objects_delete,
    "storage.buckets.get": buckets_get,
    "storage.buckets.testIamPermissions": test_permissions,
}
