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
    r"|AGE-SECRET-KEY-1[A-Z0-9]{20,}"
    r"|AccountKey=[A-Za-z0-9+/]{40,}"
    r"|ATATT3x[A-Za-z0-9_=-]{20,}"
    r"|dapi[0-9a-f]{32}"
    r"|dckr_pat_[A-Za-z0-9_-]{16,}"
    r"|eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}"
    r"|GOCSPX-[A-Za-z0-9_-]{16,}"
    r"|gsk_[A-Za-z0-9]{20,}"
    r"|hvs\.[A-Za-z0-9_-]{16,}"
    r"|hooks\.slack\.com/services/T[A-Za-z0-9_/]{16,}"
    r"|npm_[A-Za-z0-9]{30,}"
    r"|nvapi-[A-Za-z0-9_-]{20,}"
    r"|pypi-AgEI[A-Za-z0-9_-]{16,}"
    r"|r8_[A-Za-z0-9]{30,}"
    r"|SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}"
    r"|[rs]k_(?:live|test)_[A-Za-z0-9]{16,}"
    r"|ya29\.[A-Za-z0-9_-]{20,}"
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


# An AWS secret key, of 40 characters, has no form of its own: see _is_random.
_FORTY = re.compile(r"(?<![A-Za-z0-9/+])[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=])")
_MOST_SLASHES, _LONGEST_WORD = 4, re.compile(r"[a-z]{7}")

# What a variable is called that holds a secret, whatever that looks like …
_PASSWORDS = re.compile(
    r"(?:.*_)?(?:[A-Z]*PASSW(?:OR)?D|PASSPHRASE|PWD|SECRET|SECRET_KEY|"
    r"SECRET_ACCESS_KEY|PRIVATE_KEY)",
    re.IGNORECASE,
)
# … or only if it looks random: PAD_TOKEN and SORT_KEY hold none.
_TOKENS = re.compile(r"(?:.*_)?(?:TOKEN|[A-Z]*KEY|CREDENTIALS?|PAT)", re.IGNORECASE)
_RANDOM = re.compile(
    r"(?<![A-Za-z0-9])(?=[A-Za-z]*[0-9])(?=[0-9]*[A-Za-z])[A-Za-z0-9]{16}"
)
_SWITCHES = frozenset(["true", "false", "yes", "no", "on", "off", "none", "0", "1"])
_ASSIGNMENT = re.compile(
    r"(?<![\w$-])(?:([A-Za-z_][\w-]{0,63})=|--([a-z][\w-]{0,63})[= ])"
    r"[\"']?([^\s\"']+)"
)


def looks_secret(text: str) -> bool:
    """Tell whether a text holds something of the form of a key or a password."""
    if _SECRETS.search(text) is not None:
        return True
    if any(_is_random(found) for found in _FORTY.findall(text)):
        return True
    return any(
        names_secret(name or option, value)
        for name, option, value in _ASSIGNMENT.findall(text)
    )


def names_secret(name: str, value: str) -> bool:
    """Tell whether a variable or an option of this name holds a secret by value."""
    name = name.replace("-", "_")
    # Another variable, or the path of a file.
    if not value or value.startswith(("$", "/", "~", "./", "%", "{")):
        return False
    if value.lower() in _SWITCHES:
        return False
    if _PASSWORDS.fullmatch(name):
        return True
    return bool(_TOKENS.fullmatch(name) and _RANDOM.search(value))


def _is_random(text: str) -> bool:
    """Tell forty random characters from a path or a hash."""
    classes = ("[A-Z]", "[a-z]", "[0-9]")
    return (
        all(re.search(one, text) for one in classes)
        and text.count("/") <= _MOST_SLASHES
        and _LONGEST_WORD.search(text) is None
    )


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
