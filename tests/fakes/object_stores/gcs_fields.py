"""Partial responses: the parameter *fields* of Google's JSON APIs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from tests.fakes.gcp import schema
from tests.fakes.object_stores.gcs_errors import GoogleError

# The chosen fields by name; an empty tree is all of a field.
Tree = dict[str, Any]
_TOKEN = re.compile(r"[A-Za-z0-9_*-]+|[(),/]")


def select(answer: Any, fields: str, shape: str) -> Any:
    """
    Return the chosen fields of an answer.

    Args:
        shape: The name of the answer's schema in the discovery document.

    Raises:
        GoogleError: The selection is malformed or has a field that does not exist.
    """
    if "".join(_TOKEN.findall(fields)) != fields:
        raise _invalid(fields)
    tokens = iter([*_TOKEN.findall(fields), ""])
    tree, end = _list(tokens)
    if end:
        raise _invalid(fields)
    _check(tree, {"$ref": shape})
    return _pick(answer, tree)


def _list(tokens: Iterator[str]) -> tuple[Tree, str]:
    """Return a list of fields and the token after it."""
    tree: Tree = {}
    while True:
        name = next(tokens)
        if name in ("", "(", ")", ",", "/"):
            raise _invalid(name)
        place = tree.setdefault(name, {})
        mark = next(tokens)
        while mark == "/":
            name = next(tokens)
            if name in ("", "(", ")", ",", "/"):
                raise _invalid(name)
            place = place.setdefault(name, {})
            mark = next(tokens)
        if mark == "(":
            inner, end = _list(tokens)
            if end != ")":
                raise _invalid(name)
            place.update(inner)
            mark = next(tokens)
        if mark != ",":
            return tree, mark


def _check(tree: Tree, shape: Mapping[str, Any]) -> None:
    if "$ref" in shape:
        shape = schema.document(schema.STORAGE)["schemas"][shape["$ref"]]
    if shape.get("type") == "array":
        return _check(tree, shape["items"])
    for name, inner in tree.items():
        if name == "*":
            continue
        found = shape.get("properties", {}).get(name, shape.get("additionalProperties"))
        if found is None:
            raise _invalid(name)
        if inner:
            _check(inner, found)
    return None


def _pick(value: Any, tree: Tree) -> Any:
    if not tree or "*" in tree:
        return value
    if isinstance(value, list):
        return [_pick(one, tree) for one in value]
    return {
        name: _pick(value[name], inner) for name, inner in tree.items() if name in value
    }


def _invalid(name: str) -> GoogleError:
    return GoogleError(
        400, details=f"Invalid field selection {name}", reason="invalidParameter"
    )
