"""Check, encode and display file names that came over the connection."""

from __future__ import annotations

# No component of a path may be one of these.
NO_NAMES = frozenset([b"", b".", b".."])

# An error message shows about this many characters of a path.
BRIEF = 200


class Hostile(Exception):
    """The peer (client or agent) violated the protocol, by mistake or on purpose."""


def check_path(path: bytes) -> None:
    """Raise `Hostile` unless *path* is relative and has no component "." or ".."."""
    if b"\0" in path or not NO_NAMES.isdisjoint(path.split(b"/")):
        raise Hostile("%s is no path inside the folder" % show(path))


def show(path: bytes) -> str:
    """Return a path as printable text on one line."""
    return printable(path.decode("utf-8", "backslashreplace"))


def brief(path: bytes) -> str:
    """Return *path* as `show` does, but leave out the middle of a long path."""
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
    """
    Decode a file name that may contain any bytes; `raw` reverses it.

    The result does not depend on the locale.
    """
    return name.decode("utf-8", "surrogateescape")


def raw(name: str) -> bytes:
    """Return the bytes of a file name that `text` decoded."""
    return name.encode("utf-8", "surrogateescape")
