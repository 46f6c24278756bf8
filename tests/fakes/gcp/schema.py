"""
Check requests against Google's own description of an API, such as Compute's.

The discovery documents are part of `google-api-python-client`. Refused are: an unknown
method, parameter or field, a wrong type, a value outside an enumeration or pattern, a
missing required field, and a field that only the server may write.
"""

from __future__ import annotations

import base64
import binascii
import functools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any
from urllib.parse import unquote

_RANGES = {
    "int32": (-(1 << 31), (1 << 31) - 1),
    "uint32": (0, (1 << 32) - 1),
    "int64": (-(1 << 63), (1 << 63) - 1),
    "uint64": (0, (1 << 64) - 1),
}
_OUTPUT = re.compile(r"\[Output Only\]|Output only\.")


class RefusedError(Exception):
    """The request does not match the description."""


@dataclass(frozen=True)
class Call:
    """A request that matches the description: its method and parameters."""

    method: str
    path: Mapping[str, str]
    query: Mapping[str, str]
    body: Any


COMPUTE = "compute"
STORAGE = "storage"


@functools.cache
def document(api: str) -> Mapping[str, Any]:
    """Return the discovery document of the first version of an API."""
    home = resources.files("googleapiclient.discovery_cache.documents")
    found = json.loads((home / f"{api}.v1.json").read_text("utf-8"))
    assert isinstance(found, dict)
    return found


def read(
    verb: str,
    path: str,
    query: Mapping[str, list[str]],
    body: Any,
    api: str = COMPUTE,
) -> Call:
    """Return the call of an HTTP request; raise RefusedError if it is not valid."""
    method, parameters = _method(api, verb, path)
    values = _query(api, method, query)
    schema = method.get("request")
    if schema is None and body is not None:
        raise RefusedError(f"{method['id']} takes no body")
    if schema is not None:
        if body is None:
            raise RefusedError(f"{method['id']} requires a body")
        _check(api, body, schema, method["id"], "body")
    return Call(method["id"], parameters, values, body)


def scopes(api: str, method: str) -> frozenset[str]:
    """Return the OAuth scopes of which a call of a method needs one."""
    found = {one["id"]: one for *_, one in _methods(api)}
    return frozenset(found[method]["scopes"])


@functools.cache
def _methods(api: str) -> list[tuple[str, re.Pattern[str], int, Mapping[str, Any]]]:
    found = []
    root = f"/{api}/v1/"
    for method in _walk(document(api)["resources"]):
        path = method.get("flatPath", method["path"])
        parts = [
            f"(?P<{part[1:-1]}>[^/]+)" if part.startswith("{") else re.escape(part)
            for part in path.split("/")
        ]
        literal = sum(not part.startswith("(") for part in parts)
        pattern = re.compile(re.escape(root) + "/".join(parts))
        found.append((method["httpMethod"], pattern, literal, method))
    return found


def _walk(items: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for item in items.values():
        yield from item.get("methods", {}).values()
        yield from _walk(item.get("resources", {}))


def _method(api: str, verb: str, path: str) -> tuple[Mapping[str, Any], dict[str, str]]:
    fitting = [
        (literal, method, match.groupdict())
        for its_verb, pattern, literal, method in _methods(api)
        if its_verb == verb
        for match in [pattern.fullmatch(path)]
        if match
    ]
    if not fitting:
        raise RefusedError(f"there is no method {verb} {path}")
    _, method, parameters = max(fitting, key=lambda one: one[0])
    parameters = {name: unquote(value) for name, value in parameters.items()}
    for name, value in parameters.items():
        _check(api, value, method["parameters"][name], method["id"], f"path {name}")
    return method, parameters


def _query(
    api: str, method: Mapping[str, Any], query: Mapping[str, list[str]]
) -> dict[str, str]:
    known = {
        **document(api)["parameters"],
        **{
            name: schema
            for name, schema in method.get("parameters", {}).items()
            if schema["location"] == "query"
        },
    }
    for name, values in query.items():
        if name not in known:
            raise RefusedError(f"{method['id']} has no parameter {name}")
        if len(values) > 1 and not known[name].get("repeated"):
            raise RefusedError(f"parameter {name} occurs {len(values)} times")
        for value in values:
            _check_text(value, known[name], name)
    for name, schema in known.items():
        if schema.get("required") and name not in query:
            raise RefusedError(f"{method['id']} requires the parameter {name}")
    return {name: values[-1] for name, values in query.items()}


def _check_text(value: str, schema: Mapping[str, Any], where: str) -> None:
    """Check a value of a query string, where every value is text."""
    if schema["type"] == "boolean" and value not in ("true", "false"):
        raise RefusedError(f"{where} is {value!r}, not true or false")
    if schema["type"] == "integer":
        if not re.fullmatch(r"-?[0-9]+", value):
            raise RefusedError(f"{where} is {value!r}, not a number")
        _check_range(int(value), schema, where)
    _check_values(value, schema, where)


def _check(
    api: str, value: Any, schema: Mapping[str, Any], method: str, where: str
) -> None:
    if "$ref" in schema:
        schema = document(api)["schemas"][schema["$ref"]]
    kind = schema.get("type", "any")
    if kind == "object":
        _check_object(api, value, schema, method, where)
    elif kind == "array":
        if not isinstance(value, list):
            raise RefusedError(f"{where} is no list")
        for place, one in enumerate(value):
            _check(api, one, schema["items"], method, f"{where}[{place}]")
    elif kind == "string":
        if not isinstance(value, str):
            raise RefusedError(f"{where} is {value!r}, not a text")
        _check_format(value, schema, where)
        _check_values(value, schema, where)
    elif kind == "boolean" and not isinstance(value, bool):
        raise RefusedError(f"{where} is {value!r}, not true or false")
    elif kind in ("integer", "number"):
        whole = kind == "integer"
        right = isinstance(value, int) or (not whole and isinstance(value, float))
        if not right or isinstance(value, bool):
            raise RefusedError(f"{where} is {value!r}, not a number")
        _check_range(value, schema, where)


def _check_object(
    api: str, value: Any, schema: Mapping[str, Any], method: str, where: str
) -> None:
    if not isinstance(value, dict):
        raise RefusedError(f"{where} is no object")
    properties = schema.get("properties", {})
    for name, one in value.items():
        inner = properties.get(name, schema.get("additionalProperties"))
        if inner is None:
            raise RefusedError(f"unknown name {name!r} in {where}")
        if inner.get("readOnly") or _OUTPUT.match(inner.get("description", "")):
            raise RefusedError(f"{where}.{name} is written by the server only")
        _check(api, one, inner, method, f"{where}.{name}")
    for name, inner in properties.items():
        required = inner.get("annotations", {}).get("required", ())
        if method in required and where == "body" and name not in value:
            raise RefusedError(f"{where} requires {name}")


def _check_format(value: str, schema: Mapping[str, Any], where: str) -> None:
    form = schema.get("format")
    if form in _RANGES:
        if not re.fullmatch(r"-?[0-9]+", value):
            raise RefusedError(f"{where} is {value!r}, not a number in a text")
        _check_range(int(value), schema, where)
    if form == "byte":
        try:
            base64.urlsafe_b64decode(value)
        except (binascii.Error, ValueError) as error:
            raise RefusedError(f"{where} is not base64") from error


def _check_range(value: float, schema: Mapping[str, Any], where: str) -> None:
    low, high = _RANGES.get(schema.get("format", ""), (None, None))
    if low is not None and high is not None and not low <= value <= high:
        raise RefusedError(f"{where} is {value}, which is out of range")


def _check_values(value: str, schema: Mapping[str, Any], where: str) -> None:
    if "enum" in schema and value not in schema["enum"]:
        raise RefusedError(f"{where} is {value!r}, not one of {schema['enum']}")
    if "pattern" in schema and not re.fullmatch(schema["pattern"], value):
        raise RefusedError(f"{where} is {value!r}, not as {schema['pattern']}")
