"""Read one TOML value with toml, the one place that imports it."""

from __future__ import annotations

import re
from collections.abc import Callable

_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|[\s\S])")
# The spelling of each of these that toml 0.10.2 reads right.
_BACKSLASH, _QUOTE = "\\\\", "\\u0022"


def reader() -> Callable[[str], object]:
    r"""
    Return what reads a value as TOML writes it; it raises ValueError.

    toml is imported here, when there is something to read. 0.10.2 takes the
    character of "\u005c" for the beginning of another escape, reads "\"" as an
    empty text unless it stands in three quotes, fails with IndexError at some
    wrong escapes, and takes the # of three quotes around "# for a comment.
    """
    import toml

    def read(raw: str) -> object:
        if raw.startswith('"') and "\\" in raw:
            raw = _ESCAPE.sub(_respell, raw)
            if not raw.startswith('"""'):
                raw = f'""{raw}""'
        try:
            return toml.loads(f"value = {raw}\n")["value"]
        except (IndexError, KeyError) as error:
            raise ValueError("not a value") from error

    return read


def _respell(match: re.Match[str]) -> str:
    code = match.group(1) or match.group(2)
    if match.group() == '\\"' or (code is not None and int(code, 16) == ord('"')):
        return _QUOTE
    return _BACKSLASH if code and int(code, 16) == ord("\\") else match.group()
