"""File names from the other end: validation, encoding, and display on one line."""

from __future__ import annotations

# These may not be a component of a path.
NO_NAMES = frozenset([b"", b".", b".."])

# Maximum number of characters of a path in an error message.
BRIEF = 200


class Hostile(Exception):
    """The other end violated the protocol, by mistake or on purpose."""


def check_path(path: bytes) -> None:
    """Accept only a relative path without "." or "..". Raises `Hostile`."""
    if b"\0" in path or not NO_NAMES.isdisjoint(path.split(b"/")):
        raise Hostile("%s is no path inside the folder" % show(path))


def show(path: bytes) -> str:
    """Return a path as printable text on one line."""
    return printable(path.decode("utf-8", "backslashreplace"))


def brief(path: bytes) -> str:
    """Return a path like `show`, with the middle of a long path left out."""
    shown = show(path)
    return (
        shown
        if len(shown) <= BRIEF
        else f"{shown[: BRIEF // 2]}…{shown[-BRIEF // 2 :]}"
    )


def printable(text: str) -> str:
    """Return a text with all unprintable characters escaped."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def text(name: bytes) -> str:
    """Decode a file name of any bytes, reversibly and independent of the locale."""
    return name.decode("utf-8", "surrogateescape")


def raw(name: str) -> bytes:
    """Encode a name that `text` decoded."""
    return name.encode("utf-8", "surrogateescape")
