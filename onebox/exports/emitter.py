"""Write YAML: tables, lists, quoted texts, and scripts as blocks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence

# JSON leaves these as they are in a text, and some readers of YAML do not.
_RAW = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ud800-\udfff\ufffe\uffff]")
_BARE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# A reader may take these for booleans and null.
_WORDS = frozenset(["y", "n", "yes", "no", "on", "off", "true", "false", "null"])


def quoted(text: str) -> str:
    """
    Return a text as a YAML scalar in double quotes.

    >>> quoted("a: \\u2028 é"), quoted("1")
    ('"a: \\\\u2028 é"', '"1"')
    """
    text = json.dumps(text, ensure_ascii=False)
    return _RAW.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def key(text: str) -> str:
    """
    Return a key of a table; it is quoted unless every reader takes it as a text.

    >>> key("envs"), key("Y"), key("a/b")
    ('envs', '"Y"', '"a/b"')
    """
    is_text = _BARE.fullmatch(text) and text.lower() not in _WORDS
    return text if is_text else quoted(text)


def table(values: Mapping[str, object], indent: int = 0) -> Iterator[str]:
    """
    Yield the lines of a table.

    A value is a text, a number, a boolean, None, a table, or a list of tables.
    """
    space = " " * indent
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield f"{space}{key(name)}:"
            yield from table(value, indent + 2)
        elif isinstance(value, Sequence) and not isinstance(value, str):
            yield f"{space}{key(name)}:"
            for one in value:
                yield from _item(one, indent + 2)
        else:
            yield f"{space}{key(name)}: {_scalar(value)}"


def script(name: str, text: str) -> Iterator[str]:
    """
    Yield the lines of a key with a script.

    It is a block, as long as every reader then gets the same text.
    """
    lines = text.split("\n")
    plain = all(line.replace("\t", "").isprintable() for line in lines)
    # A block begins with no blank, and ends with one line break.
    if not plain or text[:1] in ("", "\n", " ", "\t") or lines[-1] or not lines[-2]:
        yield f"{key(name)}: {quoted(text)}"
        return
    yield f"{key(name)}: |"
    for line in lines[:-1]:
        yield f"  {line}" if line else ""


def _item(values: Mapping[str, object], indent: int) -> Iterator[str]:
    mark = "- "
    for line in table(values, indent + 2):
        yield " " * indent + mark + line[indent + 2 :]
        mark = "  "


def _scalar(value: object) -> str:
    return quoted(value) if isinstance(value, str) else json.dumps(value)
