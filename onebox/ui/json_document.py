"""Turn the values that a command prints into one JSON document."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Set
from pathlib import PurePath
from typing import Any

from onebox.agent.file_names import show

# The version of all documents, also of the one that `agent/jobs/notification.py` sends.
# It changes when a field is removed, is renamed or gets
# another meaning; new fields do not change it.
SCHEMA_VERSION = 1


def document(kind: str, fields: Mapping[str, object]) -> str:
    """
    Return a JSON document as text.

    Args:
        kind: What the document is, such as "plan".

        fields: Its content: dataclasses, mappings, sequences, paths, numbers, texts.
    """
    content = {"schema_version": SCHEMA_VERSION, "kind": kind, **plain(fields)}
    return json.dumps(content, indent=2, ensure_ascii=True, allow_nan=False)


def plain(value: object) -> Any:
    """
    Return *value* as JSON has it.

    >>> plain({"a": (1, b"x"), "b": float("inf")})
    {'a': [1, 'x'], 'b': None}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: plain(getattr(value, field.name))
            for field in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Set):
        return sorted(plain(item) for item in value)
    if isinstance(value, bytes):
        return show(value)
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{type(value).__name__} has no form in JSON")
