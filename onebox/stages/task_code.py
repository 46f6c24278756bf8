"""Hash what a task of the user does: its source, and the values that it contains."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from types import CodeType, FunctionType, MethodType
from typing import Any

# The text of such a value is the same in each process. A class is before its bases.
_NUMBERS = (bool, int, float, complex, Decimal, range, datetime, date, time, timedelta)
_PLAIN: tuple[Any, ...] = (*_NUMBERS, str, bytes, PurePath, type, type(None))


def code_hash(body: Callable[..., Any], *values: object) -> str:
    """
    Return the hash of a function and of *values*.

    The hash covers the source, or the code without a source, the defaults, and the
    values of variables of an enclosing function. Two functions that a factory has made
    differ only in these. Of an object that is no plain data, only the type counts.
    """
    text = _text([body, *values], ())
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()


def _text(value: object, outer: tuple[int, ...]) -> str:
    """
    Return a text that is the same in each process.

    Args:
        outer: The ids of the objects that *value* is in; an object may contain itself.
    """
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    if isinstance(value, Enum):
        return f"{name} {value.name} {_text(value.value, outer)}"
    for kind in _PLAIN:
        if isinstance(value, kind):
            # The text of a class of the user's own may contain an address.
            return f"{name} {kind.__repr__(value)}"
    if id(value) in outer:
        return "…"
    outer = (*outer, id(value))
    parts: list[str]
    if isinstance(value, FunctionType):
        parts = [_source(value), *(_text(one, outer) for one in _held(value))]
    elif isinstance(value, functools.partial):
        held = (value.func, value.args, value.keywords)
        parts = [_text(one, outer) for one in held]
    elif isinstance(value, MethodType):
        parts = [_text(one, outer) for one in (value.__func__, value.__self__)]
    elif isinstance(value, CodeType):
        parts = [value.co_code.hex(), _text(value.co_names, outer)]
        parts += [_text(one, outer) for one in value.co_consts]
    elif isinstance(value, Mapping):
        parts = [
            f"{_text(key, outer)}: {_text(one, outer)}" for key, one in value.items()
        ]
        parts.sort()
    elif dataclasses.is_dataclass(value):
        fields = [field.name for field in dataclasses.fields(value)]
        parts = [_text(getattr(value, name, None), outer) for name in fields]
    elif isinstance(value, AbstractSet):
        parts = sorted(_text(one, outer) for one in value)
    elif isinstance(value, (list, tuple)):
        parts = [_text(one, outer) for one in value]
    else:
        parts = []
    return f"{name} [{', '.join(f'{len(part)} {part}' for part in parts)}]"


def _source(function: FunctionType) -> str:
    # For the function itself, inspect may return the source of a function it wraps.
    try:
        return inspect.getsource(function.__code__)
    except (OSError, TypeError):
        return _text(function.__code__, ())


def _held(function: FunctionType) -> list[object]:
    """Return the values that belong to a function besides its source."""
    held: list[object] = [function.__defaults__, function.__kwdefaults__]
    for cell in function.__closure__ or ():
        try:
            held.append(cell.cell_contents)
        except ValueError:
            # The enclosing function has not set the variable.
            held.append("unset")
    return held
