"""Names of files: any bytes, never trusted, shown on one line."""

from __future__ import annotations

# What no part of a path may be.
NO_NAMES = frozenset([b"", b".", b".."])

# How many characters of a path an error names.
BRIEF = 200


class Hostile(Exception):
    """What the other end sent breaks the rules, by mistake or on purpose."""


def check_path(path: bytes) -> None:
    """Refuse a path that is absolute, climbs, or is no path. Raises `Hostile`."""
    if b"\0" in path or not NO_NAMES.isdisjoint(path.split(b"/")):
        raise Hostile("%s is no path inside the folder" % show(path))


def show(path: bytes) -> str:
    """Return a path as it can be shown on any terminal, on one line."""
    return printable(path.decode("utf-8", "backslashreplace"))


def brief(path: bytes) -> str:
    """Return a path as `show` does, without the middle of a long one."""
    shown = show(path)
    return (
        shown
        if len(shown) <= BRIEF
        else f"{shown[: BRIEF // 2]}…{shown[-BRIEF // 2 :]}"
    )


def printable(text: str) -> str:
    """Return a text with every character escaped that could disturb a terminal."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def text(name: bytes) -> str:
    """Decode a name so that any bytes survive, under any locale."""
    return name.decode("utf-8", "surrogateescape")


def raw(name: str) -> bytes:
    """Return the bytes of a name that `text` has decoded."""
    return name.encode("utf-8", "surrogateescape")
