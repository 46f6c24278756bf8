"""
Make the JSON Schema of onebox.toml for editors.

`python -m onebox.settings.json_schema` prints it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from onebox.errors import StateError
from onebox.settings.checks import Between, Matching, OneOf, distinct, is_name
from onebox.settings.fields import Key
from onebox.settings.kinds import INTEGER, NUMBER, as_written
from onebox.settings.schema import keys, size_keys
from onebox.store.atomic_files import NO_LINK, open_folder, open_in, write_in

# Where `init` writes the schema. Editors with Taplo (Even Better TOML) read a path that
# is relative to onebox.toml.
SCHEMA = ".onebox/schema.json"


def write(local_dir: Path) -> None:
    """
    Write the schema into the folder `.onebox` of a project.

    Raises:
        StateError: The folder is a link, which could lead to any place.
    """
    with open_folder(local_dir) as folder:
        write_in(folder, Path(SCHEMA).name, _encoded(), mode=0o644)


def refresh(root: Path) -> None:
    """
    Write the schema again if the project has one that another version has written.

    A schema that cannot be read or written stays as it is.
    """
    path = root / SCHEMA
    with suppress(OSError, StateError):
        place = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | NO_LINK)
        try:
            with os.fdopen(open_in(place, path, os.O_RDONLY), "rb") as file:
                present = file.read()
            if present != _encoded():
                write_in(place, path.name, _encoded(), mode=0o644)
        finally:
            os.close(place)


def _encoded() -> bytes:
    return json.dumps(json_schema(), indent=1).encode()


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of onebox.toml, made from the declared settings."""
    root = _object("onebox.toml")
    root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    for key in keys().values():
        table = root
        if key.table == "size.*":
            continue
        for name in filter(None, key.table.split(".")):
            table = table["properties"].setdefault(name, _object())
        table["properties"][key.name] = _value(key)
    size = _object("A size; the name is that of its table.")
    size["properties"] = {name: _value(key) for name, key in size_keys().items()}
    root["properties"]["size"] = {
        "type": "object",
        "propertyNames": {"pattern": _anchored(is_name.pattern)},
        "additionalProperties": size,
    }
    profile = _object("The settings of a profile, which --profile chooses.")
    profile["properties"] = {
        name: {"$ref": f"#/properties/{name}"} for name in root["properties"]
    }
    root["properties"]["profile"] = {
        "type": "object",
        "propertyNames": {"pattern": _anchored(is_name.pattern)},
        "additionalProperties": profile,
    }
    return root


def _object(description: str = "") -> dict[str, Any]:
    schema: dict[str, Any] = {
        "type": "object",
        "additionalProperties": False,
        "properties": {},
    }
    return {"description": description, **schema} if description else schema


def _value(key: Key) -> dict[str, Any]:
    items: dict[str, Any] = {}
    whole: dict[str, Any] = {}
    for check in key.checks:
        if isinstance(check, OneOf):
            items["enum"] = [*check.words, *([""] if key.blank else [])]
        elif isinstance(check, Matching):
            pattern = f"(?:{check.pattern})?" if key.blank else check.pattern
            items["pattern"] = _anchored(pattern)
        elif isinstance(check, Between) and key.kind in (NUMBER, INTEGER):
            whole.update(minimum=check.low, maximum=check.high)
        elif check is distinct:
            whole["uniqueItems"] = True
    schema = _with_items(key.kind.json_schema, items, whole)
    schema["description"] = key.help
    if key.default not in (None, "", (), {}):
        schema["default"] = as_written(key.kind, key.default)
    return schema


def _with_items(
    schema: Mapping[str, Any], items: dict[str, Any], whole: dict[str, Any]
) -> dict[str, Any]:
    """
    Return a kind's schema with additional conditions.

    *items* are conditions for each string, *whole* those for a list or number.
    """
    if "anyOf" in schema:
        return {"anyOf": [_with_items(one, items, whole) for one in schema["anyOf"]]}
    if schema["type"] == "array":
        return {**schema, "items": {**schema["items"], **items}, **whole}
    if schema["type"] == "string":
        return {**schema, **items}
    return {**schema, **whole}


def _anchored(pattern: str) -> str:
    return f"^(?:{pattern})$"


if __name__ == "__main__":
    sys.stdout.write(json.dumps(json_schema(), indent=2) + "\n")
