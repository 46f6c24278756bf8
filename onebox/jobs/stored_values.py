"""
Check the values of a stored file before a dataclass is made of them.

The file may be part of a project that was cloned, so it can hold any values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from onebox.agent.file_names import printable
from onebox.remote.json_fields import LARGEST, LATEST

_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "None": (type(None),),
}
_MAPPING = "Mapping[str, "


def cleaned(value: object) -> Any:
    """
    Return a JSON value whose texts are safe for a terminal; tabs and line breaks stay.

    Raises:
        ValueError: A number is not finite or too large.
    """
    if isinstance(value, dict):
        return {printable(name): cleaned(item) for name, item in value.items()}
    if isinstance(value, list):
        return [cleaned(item) for item in value]
    if isinstance(value, str):
        return "".join(c if c in "\n\t" else printable(c) for c in value)
    if isinstance(value, float) and not abs(value) <= LATEST:
        raise ValueError("a number is too large")
    if isinstance(value, int) and abs(value) > LARGEST:
        raise ValueError("a number is too large")
    return value


def check_types(instance: Any) -> None:
    """
    Check the fields of a dataclass whose types are texts, numbers and their mappings.

    Raises:
        TypeError: A field has a value of another type.
    """
    for field in fields(instance):
        value, declared = getattr(instance, field.name), str(field.type)
        if declared.startswith(_MAPPING):
            inner, _, rest = declared[len(_MAPPING) :].partition("]")
            if value is None and "None" in rest:
                continue
            if not isinstance(value, Mapping):
                raise TypeError(field.name)
            _check(field.name, inner, value.values())
        elif all(name in _TYPES for name in declared.split(" | ")):
            _check(field.name, declared, [value])


def _check(name: str, declared: str, values: Any) -> None:
    types = tuple(one for word in declared.split(" | ") for one in _TYPES[word])
    if not all(isinstance(value, types) for value in values):
        raise TypeError(name)
