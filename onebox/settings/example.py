"""
Make an example of onebox.toml that has every setting with its default.

`inv init --example` prints it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

from onebox.settings.fields import Key
from onebox.settings.kinds import BYTES, DURATION
from onebox.settings.schema import SIZES, keys, size_keys
from onebox.settings.units import format_bytes

_HEADER = """\
# Every setting of onebox, with its default. A key behind a # has no default; its
# value is an example. ONEBOX_* variables override onebox.toml, flags override both."""
_WIDTH = 88
_COLUMN = 28


def example() -> str:
    """Return the text of the example."""
    lines = [_HEADER, ""]
    table = ""
    for key in keys().values():
        if key.table == "size.*":
            continue
        if key.table != table:
            if not table:
                lines += _sizes()
            table = key.table
            lines += ["", f"[{table}]"]
        lines += _lines(key)
    return "\n".join([*lines, ""])


def _sizes() -> Iterator[str]:
    """Yield the tables of the built-in sizes; the last one has every setting."""
    for size in SIZES:
        yield from ("", f"[size.{size.name}]")
        for key in size_keys().values():
            if key.name in ("cpus", "memory"):
                yield from _lines(replace(key, default=getattr(size, key.name)))
    for key in size_keys().values():
        if key.name not in ("cpus", "memory"):
            yield from _lines(key)


def _lines(key: Key) -> Iterator[str]:
    """Yield the line of a setting, after its help text if both do not fit."""
    if key.default in (None, "", (), {}):
        text = f"# {key.name} = {key.example}"
    else:
        text = f"{key.name} = {_default(key)}"
    line = f"{text:<{_COLUMN - 1}} # {key.help}"
    if len(line) > _WIDTH or len(text) >= _COLUMN:
        yield f"# {key.help}"
        line = text
    yield line


def _default(key: Key) -> str:
    """Return the default of a setting as TOML."""
    if key.kind is BYTES and isinstance(key.default, int):
        return f'"{format_bytes(key.default)}"'
    if key.kind is DURATION:
        return f'"{key.default:g} s"'
    if isinstance(key.default, float):
        return f"{key.default:g}"
    return json.dumps(key.default, ensure_ascii=False)
