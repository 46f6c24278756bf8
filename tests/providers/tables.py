"""Settings of providers for tests, from the keys of their tables in onebox.toml."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from onebox.settings.fields import Table, build

TableOf = TypeVar("TableOf", bound=Table)


def table(kind: type[TableOf], keys: Mapping[str, object]) -> TableOf:
    """
    Return a provider's settings; a key with the value None is not set.

    The key "tags" has the user's tags.
    """
    values = {}
    for name, value in keys.items():
        if name == "tags":
            continue
        if isinstance(value, dict):
            values.update({f"{name}.{inner}": item for inner, item in value.items()})
        elif value is not None:
            values[name] = tuple(value) if isinstance(value, list) else value
    more: dict[str, Any] = {"tags": keys["tags"]} if "tags" in keys else {}
    made = build(kind, values, **more)
    assert isinstance(made, kind)
    return made
