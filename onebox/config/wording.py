"""Quote what a user wrote, on one line and never a secret."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")

# Formats that providers publish so that leaked keys can be told; one per line.
_SECRETS = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"(?:AKIA|ASIA)[A-Z0-9]{12,}"
    r"|AIza[A-Za-z0-9_-]{20,}"
    r"|do[opr]_v1_[A-Za-z0-9]{8,}"
    r"|gh[opsur]_[A-Za-z0-9]{16,}"
    r"|github_pat_[A-Za-z0-9_]{16,}"
    r"|glpat-[A-Za-z0-9_-]{16,}"
    r"|hf_[A-Za-z0-9]{16,}"
    r"|xox[abprs]-[A-Za-z0-9-]{16,}"
    # Words joined with dashes are not keys: those mix cases and digits.
    r"|sk-(?:[A-Za-z0-9]{20,}|(?=[\w-]{0,99}[A-Z])(?=[\w-]{0,99}[0-9])[\w-]{20})"
    r")"
    r"|-----BEGIN"
    # A password in an address; $TOKEN there is a name, not a value.
    r"|://[^/\s:@]{1,99}:[^/\s@$]{1,999}@"
)


def looks_secret(text: str) -> bool:
    """Tell whether a text holds something of the form of a key or a password."""
    return _SECRETS.search(text) is not None


def show(value: object) -> str:
    """Quote a value: one line, not long, and a secret not at all."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return f"{value:.6g}" if isinstance(value, float) else str(value)[:40]
    text = value if isinstance(value, str) else str(value)
    if looks_secret(text):
        return "(hidden)"
    text = text if len(text) <= 40 else text[:39] + "…"
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in quoted)


def suggest(name: str, known: Iterable[str]) -> str:
    """Return `, did you mean …?` with the nearest name, or nothing."""
    near = difflib.get_close_matches(name[:99], list(known), n=1, cutoff=0.6)
    return f", did you mean {near[0]}?" if near else ""


def dotted(path: tuple[str, ...]) -> str:
    """Write a path as TOML does, quoted only where it has to be."""
    return ".".join(
        part if _BARE_KEY.fullmatch(part) and show(part) == f'"{part}"' else show(part)
        for part in path
    )


def show_path(path: tuple[str, ...]) -> str:
    """Write a path as `[table] key`, the way messages name a setting."""
    if not path:
        return "key"
    *table, key = path
    if not table:
        return dotted((key,))
    return f"[{dotted(tuple(table))}] {dotted((key,))}"
