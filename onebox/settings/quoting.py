"""Quote user input in messages: on one line, shortened, and never a secret."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable

from onebox.settings.secret_detection import looks_secret

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_MOST_CHARACTERS = 40
HIDDEN = "(hidden)"


def show(value: object) -> str:
    """
    Return a value in the form in which messages quote it.

    A secret becomes `(hidden)`.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        number = f"{value:.6g}" if isinstance(value, float) else str(value)
        return number[:_MOST_CHARACTERS]
    text = str(value)
    if looks_secret(text):
        return HIDDEN
    if len(text) > _MOST_CHARACTERS:
        text = text[: _MOST_CHARACTERS - 1] + "…"
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in quoted)


def suggest(name: str, known: Iterable[str]) -> str:
    """
    Return `, did you mean …?` with the name in *known* that is nearest to *name*.

    Return "" if no known name is near.
    """
    near = nearest(name, known)
    return f", did you mean {near}?" if near else ""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the name in *known* that is nearest to *name*, "" if none is near."""
    near = difflib.get_close_matches(name[:99], list(known), n=1, cutoff=0.6)
    return near[0] if near else ""


def dotted(path: tuple[str, ...]) -> str:
    """Return a setting's path as TOML writes it, with quotes only where required."""
    return ".".join(
        part if _BARE_KEY.fullmatch(part) and show(part) == f'"{part}"' else show(part)
        for part in path
    )


def show_path(path: tuple[str, ...]) -> str:
    """Return a setting's path as `[table] key`, as messages name the setting."""
    *table, key = path
    if not table:
        return dotted((key,))
    return f"[{dotted(tuple(table))}] {dotted((key,))}"
