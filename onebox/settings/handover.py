"""Hand the merged settings of a command line to another process, as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onebox.settings.layers import Value
from onebox.settings.load import from_values
from onebox.settings.schema import Settings


def to_document(settings: Settings, changes: Mapping[str, Value]) -> dict[str, Any]:
    """
    Return the settings as a JSON object.

    No file, variable or flag has to be read again, so the other process has the same
    values, and the same texts for where they come from. Some may be secrets.

    Args:
        changes: Settings that the other process has instead, by their full names.
    """
    given = {**settings.given, **changes}
    return {
        "file": settings.config_file,
        "values": {path: _value_to(value) for path, value in given.items()},
    }


def from_document(
    root: Path, environ: Mapping[str, str], document: Mapping[str, Any]
) -> Settings:
    """
    Return the settings that `to_document` has described.

    Raises:
        ConfigError: The changed settings exclude each other.
    """
    values = {path: _value_of(value) for path, value in document["values"].items()}
    return from_values(root, environ, values, document["file"])


def _value_to(value: Value) -> list[Any]:
    strings = {name: _value_to(one) for name, one in value.strings.items()}
    return [
        *(value.path, value.value, value.source, value.label, value.profile),
        strings,
    ]


def _value_of(stored: list[Any]) -> Value:
    path, value, source, label, profile, strings = stored
    return Value(
        path,
        _frozen(value),
        source,
        label,
        profile,
        {name: _value_of(one) for name, one in strings.items()},
    )


def _frozen(value: Any) -> Any:
    """Return a value with the tuples that JSON has as lists."""
    if isinstance(value, list):
        return tuple(map(_frozen, value))
    if isinstance(value, dict):
        return {name: _frozen(item) for name, item in value.items()}
    return value
