"""The layout of a line on the screen: its marks, columns and indents."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

NAME_WIDTH = 10
RESULT_WIDTH = 18
CHECK_WIDTH = 16
# On a terminal with fewer columns than this, result and detail share one column.
NARROW = 60
# What a line of a message begins with; its further lines are indented as far.
PREFIX = re.compile(r"onebox(?:\[\d+\]|)[: ] |  next: | {2,}")
# The line of a stage begins with its name and mark.
STAGE = re.compile(rf"\S.{{{NAME_WIDTH - 1}}} (?:[✓✗•!-]|ok|FAILED) ")
MARKS = {"done": "✓", "failed": "✗", "kept": "•", "warn": "!"}
PLAIN_MARKS = {"done": "ok", "failed": "FAILED", "kept": "-", "warn": "!"}


def marks_for(console: Console) -> Mapping[str, str]:
    """Return the marks that the console's encoding can represent."""
    try:
        "".join(MARKS.values()).encode(console.encoding)
    except (UnicodeEncodeError, LookupError):
        return PLAIN_MARKS
    return MARKS


def columns(widths: Sequence[int], row: Sequence[Text | str]) -> Table:
    """Return a row whose last column has the rest of the width, and wraps there."""
    grid = Table.grid(padding=(0, 1, 0, 0))
    for width in widths:
        grid.add_column(width=width, no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(*row)
    return grid


def stage_row(
    name: str, mark: str, sign: Text, result: str, detail: str, width: int
) -> Table:
    """
    Return the row of a stage or of a line of a plan.

    *sign* shows the *mark*. *width* is the number of columns of the terminal.
    """
    # What has gone wrong must be easy to read.
    tone = "" if mark in ("failed", "warn") else "dim"
    if width < NARROW:
        sentence = Text.assemble(result, "  " if detail else "", (detail, tone))
        return columns((NAME_WIDTH, len(sign)), (Text(name, "bold"), sign, sentence))
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(width=NAME_WIDTH)
    grid.add_column(min_width=1, no_wrap=True)
    grid.add_column(min_width=RESULT_WIDTH)
    grid.add_column(overflow="fold")
    grid.add_row(Text(name, "bold"), sign, Text(result), Text(detail, tone))
    return grid


def hanging(text: Text, begin: int = 0) -> Text | Table:
    """
    Return a message whose further lines are indented as far as its first one.

    Args:
        begin: Where the message begins, if the name of a box is before it. It may also
            be the line of a stage.
    """
    prefix = PREFIX.match(text.plain, begin)
    if prefix is None and begin:
        prefix = STAGE.match(text.plain, begin)
    end = begin if prefix is None else prefix.end()
    if not end:
        return text
    first, rest = text[:end], text[end:]
    first.rstrip()
    return columns((end - 1,), (first, rest))


def dim(text: str, console: Console) -> str:
    """Return a text with the control codes for a dim line."""
    return text if console.no_color else f"\x1b[2m{text}\x1b[0m"


def footer_lines(text: str, console: Console) -> list[str]:
    """Return the lines of a footer, cut to the width of the terminal."""
    width = max(console.width - 1, 20)
    return [dim(line[:width], console) for line in text.splitlines() or [""]]


def removed(height: int) -> str:
    """Return the control codes that remove the last *height* lines of the screen."""
    return "\r\x1b[2K" + "\x1b[1A\x1b[2K" * (height - 1)
