"""
The kinds of values a setting may have, and what makes one impossible.

A kind turns a TOML value into what the settings hold; a check looks at the
result. Both raise WrongError with the rest of a sentence that begins with the key.
"""

from __future__ import annotations

import ipaddress
import math
import os
import posixpath
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn
from urllib.parse import urlsplit

from onebox.config import units
from onebox.config.wording import looks_secret, names_secret, show, suggest
from onebox.repositories import repository_of

NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

# How each cloud names its machine types. A digit is in every one of them, so
# that a mistyped size ("x-large") is not taken for a type.
TYPES = {
    "aws": re.compile(
        r"[a-z][a-z0-9-]*\.(?:metal|[a-z0-9]*(?:large|medium|small"
        r"|micro|nano))(?:-[a-z0-9]+)*"
    ),
    "gcp": re.compile(r"(?:[a-z]+[0-9]+[a-z]*|custom)-[a-z0-9]+(?:-[a-z0-9]+)*"),
    "digitalocean": re.compile(r"[a-z][a-z0-9_]*-(?=[a-z-]*[0-9])[a-z0-9-]+"),
}


class WrongError(ValueError):
    """A value cannot be used; the text says why."""


@dataclass(frozen=True)
class Kind:
    """
    A kind of value.

    *wanted* completes "wants …"; *read* returns None for a value of another
    kind; *scalar* kinds can come from a variable or a flag as text.
    """

    wanted: str
    read: Callable[[object], object]
    scalar: bool = True


Check = Callable[[object], None]


def _text(value: object) -> object:
    return value if isinstance(value, str) else None


def _flag(value: object) -> object:
    if isinstance(value, str):
        return _FLAGS.get(value.strip().lower())
    return value if isinstance(value, bool) else None


def _number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _count(value: object) -> object:
    if isinstance(value, str):
        value = int(value) if re.fullmatch(r"-?[0-9]{1,18}", value.strip()) else None
    if isinstance(value, bool):
        return None
    return value if isinstance(value, int) else None


def _size(value: object) -> object:
    return _measure(value, units.parse_bytes)


def _duration(value: object) -> object:
    return _measure(value, units.parse_duration)


def _measure(value: object, read: Callable[[str], float]) -> object:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return read(value if isinstance(value, str) else f"{value:f}")
    except (ValueError, OverflowError):
        return None


def _texts(value: object) -> object:
    if not isinstance(value, (list, tuple)):
        return None
    return tuple(value) if all(isinstance(item, str) for item in value) else None


def _text_or_texts(value: object) -> object:
    return (value,) if isinstance(value, str) else _texts(value)


def _pairs(value: object) -> object:
    if not isinstance(value, dict):
        return None
    return value if all(isinstance(item, str) for item in value.values()) else None


_FLAGS = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}

TEXT = Kind("a text", _text)
FLAG = Kind("true or false", _flag)
NUMBER = Kind("a number", _number)
COUNT = Kind("a whole number", _count)
SIZE = Kind("a size", _size)
DURATION = Kind("a duration", _duration)
TEXTS = Kind("a list of texts", _texts, scalar=False)
TEXT_OR_TEXTS = Kind("a text or a list of texts", _text_or_texts, scalar=False)
PAIRS = Kind("a table of texts", _pairs, scalar=False)

# In onebox.toml numbers and booleans are written as such, never in quotes.
UNQUOTED = (FLAG, NUMBER, COUNT)


def plain(value: object, name: str = "") -> None:
    """Refuse secrets, and characters that no name or path of ours may have."""
    if isinstance(value, dict):
        for key, item in value.items():
            plain(key)
            if isinstance(item, str) and names_secret(key, item):
                _refuse_secret(key)
            plain(item, key)
    elif isinstance(value, (list, tuple)):
        for item in value:
            plain(item)
    elif isinstance(value, str):
        if looks_secret(value):
            _refuse_secret(name)
        for character in value:
            if "\ud800" <= character <= "\udfff":
                raise WrongError("is not valid UTF-8")
            if character < " " and character not in "\n\t":
                raise WrongError("holds a control character")


def _refuse_secret(name: str) -> NoReturn:
    where = f"{name}: " if name else ""
    raise WrongError(
        f"{where}looks like a secret; [run] secrets takes the name of its variable"
    )


def between(low: float, high: float, wants: str = "") -> Check:
    """Make a check for numbers from *low* to *high*; *wants* says so in words."""
    return _range(low, high, show, wants)


def sizes_between(low: int, high: int) -> Check:
    """Make a check for sizes from *low* to *high* bytes."""
    return _range(low, high, lambda value: units.format_bytes(int(value)))


def seconds_between(low: float, high: float) -> Check:
    """Make a check for durations from *low* to *high* seconds."""
    return _range(low, high, lambda value: f"{value:g} s")


def _range(
    low: float, high: float, say: Callable[[float], str], wants: str = ""
) -> Check:
    def check(value: object) -> None:
        assert isinstance(value, (int, float))
        if not low <= value <= high:
            bounds = wants or f"{say(low)} to {say(high)}"
            raise WrongError(f"{say(value)} is out of range, wants {bounds}")

    return check


def one_of(*known: str) -> Check:
    """Make a check for a closed list of words."""

    def check(value: object) -> None:
        if value not in known:
            raise WrongError(
                f"{show(value)} is none of {', '.join(known)}"
                + suggest(str(value), known)
            )

    return check


def matching(pattern: re.Pattern[str], said: str) -> Check:
    """Make a check for a pattern, of a text or of every text in a list."""

    def check(value: object) -> None:
        for item in _items(value):
            if pattern.fullmatch(item) is None:
                raise WrongError(f"{show(item)} is not {said}")

    return check


slug = matching(
    NAME, "a name: a small letter, then at most 30 small letters, digits or dashes"
)
variables = matching(
    VARIABLE, "the name of a variable: letters, digits and _, no digit first"
)


def one_line(value: object) -> None:
    """Refuse line breaks and tabs, and blanks at the ends."""
    for item in _items(value):
        if "\n" in item or "\t" in item:
            raise WrongError(f"{show(item)} holds a line break or a tab")
        if item != item.strip():
            raise WrongError(f"{show(item)} begins or ends with a blank")


def not_empty(value: object) -> None:
    """Refuse texts that say nothing."""
    if not all(item.strip() for item in _items(value)):
        raise WrongError("is empty")


def distinct(value: object) -> None:
    """Refuse a list that names one thing twice."""
    seen: set[str] = set()
    for item in _items(value):
        if item in seen:
            raise WrongError(f"{show(item)} stands there twice")
        seen.add(item)


def inside(value: object) -> None:
    """Refuse paths that do not stay in the project."""
    for item in _items(value):
        one_line(item)
        if not item:
            raise WrongError('"" is not a path; "." is the whole project')
        if item.startswith(("/", "~")):
            raise WrongError(f"{show(item)} wants a path relative to the project")
        if ".." in item.split("/"):
            out = posixpath.normpath(item).startswith("..")
            problem = "leaves the project with .." if out else "wants a path without .."
            raise WrongError(f"{show(item)} {problem}")


def left_by_job(value: object) -> None:
    """Refuse outputs that are patterns, or all of the project."""
    inside(value)
    for item in _items(value):
        if "." in item.split("/"):
            raise WrongError(f"{show(item)} wants a path without .: name a folder")
        if "*" in item or "?" in item:
            raise WrongError(f"{show(item)} is a pattern, wants a file or folder")
        if repository_of(os.fsencode(item)) is not None:
            raise WrongError(
                f"{show(item)} cannot be an output: version control runs programs "
                "that are configured there"
            )
        if item.split("/")[0].lower() == ".onebox":
            raise WrongError(f"{show(item)} is onebox's own, name another folder")


def folder_of_box(value: object) -> None:
    """Refuse a folder for outputs that is not below one that can be left out."""
    left_by_job(value)
    text = str(value)
    if set(text.replace("{name}", "")) & set("{}"):
        raise WrongError(f"{show(text)}: {{name}} is the only part to be filled in")
    if text.split("/")[0].replace("{name}", "") != text.split("/")[0]:
        raise WrongError(
            f'{show(text)} wants a folder of its own, such as "runs/{{name}}"'
        )


def environment(value: object) -> None:
    """Refuse names that no environment takes, and those that are ours."""
    assert isinstance(value, dict)
    for name in value:
        variables(name)
        if name.startswith("ONEBOX_"):
            raise WrongError(f"{name} is a name of onebox's own")


def parameters(value: object) -> None:
    """Refuse names that no variable of a Packer template has."""
    assert isinstance(value, dict)
    for name in value:
        if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", name) is None:
            raise WrongError(f"{show(name)} is not the name of a variable")


def cidr(value: object) -> None:
    """Refuse what is not a network in CIDR notation."""
    try:
        ipaddress.ip_network(str(value))
    except ValueError:
        raise WrongError(
            f"{show(value)} is not a network, such as 203.0.113.7/32"
        ) from None


def endpoint(value: object) -> None:
    """Refuse addresses that are not https; http only on this machine."""
    try:
        parts = urlsplit(str(value))
        host, _ = parts.hostname, parts.port
    except ValueError:
        parts, host = urlsplit(""), None
    loopback = host in ("127.0.0.1", "localhost", "::1")
    if not host or parts.scheme not in ("https", "http"):
        raise WrongError(
            f"{show(value)} is not an address, such as https://example.com"
        )
    if parts.scheme == "http" and not loopback:
        raise WrongError(f"{show(value)} wants https, because credentials go there")


def types(provider: str) -> Check:
    """Make a check for the names of one cloud's machine types."""
    return matching(TYPES[provider], f"a machine type of {provider}")


def _items(value: object) -> Sequence[str]:
    if isinstance(value, str):
        return (value,)
    assert isinstance(value, tuple)
    return value
