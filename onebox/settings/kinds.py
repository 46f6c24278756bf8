"""
The kinds of values that settings have.

A kind converts a value of onebox.toml, or the text of a variable or flag, into the
value that `Settings` holds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from onebox.settings.units import format_bytes, parse_bytes, parse_duration


@dataclass(frozen=True)
class Kind:
    """
    A kind of value.

    Attributes:
        expected: A phrase that completes "expected …" in an error.

        read: A function that converts a value. It returns None if the value is not of
            this kind. It may raise `InvalidValue` with another reason.

        json_schema: A JSON Schema of the values that onebox.toml may hold.

        scalar: Whether an ONEBOX_* variable can set a value of this kind. A variable's
            text holds only one value.

        quoted: Whether onebox.toml may write the value in quotes.

        table: Whether the value is a table, whose entries are set one by one.
    """

    expected: str
    read: Callable[[object], object]
    json_schema: Mapping[str, object]
    scalar: bool = True
    quoted: bool = True
    table: bool = False


def _string(value: object) -> object:
    return value if isinstance(value, str) else None


def _boolean(value: object) -> object:
    if isinstance(value, str):
        return _BOOLEANS.get(value.strip().lower())
    return value if isinstance(value, bool) else None


def _number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _integer(value: object) -> object:
    if isinstance(value, str):
        value = int(value) if re.fullmatch(r"-?[0-9]{1,18}", value.strip()) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _bytes(value: object) -> object:
    return _with_unit(value, parse_bytes)


def _duration(value: object) -> object:
    return _with_unit(value, parse_duration)


def _with_unit(value: object, parse: Callable[[str], float]) -> object:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return parse(value if isinstance(value, str) else f"{value:f}")
    except (ValueError, OverflowError):
        return None


def _strings(value: object) -> object:
    if not isinstance(value, (list, tuple)):
        return None
    return tuple(value) if all(isinstance(item, str) for item in value) else None


def _ports(value: object) -> object:
    if not isinstance(value, (list, tuple)):
        return None
    numbers = [isinstance(n, int) and not isinstance(n, bool) for n in value]
    if not all(n or isinstance(item, str) for n, item in zip(numbers, value)):
        return None
    return tuple(map(str, value))


def _string_or_strings(value: object) -> object:
    return (value,) if isinstance(value, str) else _strings(value)


def _string_table(value: object) -> object:
    if not isinstance(value, dict):
        return None
    texts = {name: scalar_text(item) for name, item in value.items()}
    return None if None in texts.values() else texts


def scalar_text(value: object) -> str | None:
    """
    Return the text of a string, a number or a boolean: "x", "2", "0.5" or "true".

    Return None for any other value.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, (str, int, float)) else None


_BOOLEANS = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}
_ONE: dict[str, object] = {"type": "string"}
_LIST: dict[str, object] = {"type": "array", "items": _ONE}
_AMOUNT: dict[str, object] = {"type": ["string", "number"]}
_TEXT: dict[str, object] = {"type": ["string", "number", "boolean"]}

STRING = Kind("a string", _string, _ONE)
BOOLEAN = Kind("true or false", _boolean, {"type": "boolean"}, quoted=False)
NUMBER = Kind("a number", _number, {"type": "number"}, quoted=False)
INTEGER = Kind("a whole number", _integer, {"type": "integer"}, quoted=False)
BYTES = Kind("an amount of bytes", _bytes, _AMOUNT)
DURATION = Kind("a duration", _duration, _AMOUNT)
STRINGS = Kind("a list of strings", _strings, _LIST, scalar=False)
PORTS = Kind(
    "a list of ports",
    _ports,
    {"type": "array", "items": {"type": ["integer", "string"]}},
    scalar=False,
)
STRING_OR_STRINGS = Kind(
    "a string or a list of strings",
    _string_or_strings,
    {"anyOf": [_ONE, _LIST]},
    scalar=False,
)
STRING_TABLE = Kind(
    "a table of strings, numbers and booleans",
    _string_table,
    {"type": "object", "additionalProperties": _TEXT},
    scalar=False,
    table=True,
)


def as_written(kind: Kind, value: object) -> object:
    """Return a value as onebox.toml writes it, such as "30 s" or "4 GB"."""
    if kind is BYTES and isinstance(value, int):
        return format_bytes(value)
    if kind is DURATION:
        return f"{value:g} s"
    return list(value) if isinstance(value, tuple) else value
