"""Tables of requested output on a terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

STYLES = {"done": "green", "failed": "bold red", "kept": "yellow", "warn": "yellow"}


@dataclass(frozen=True)
class Cell:
    """A text in a table, with the colour of *mark*; "" means no colour."""

    text: str
    mark: str = ""


def table_of(
    head: Sequence[str], rows: Sequence[Sequence[str | Cell]], shorten: str = ""
) -> Table:
    """
    Return a table for a terminal.

    Args:
        shorten: The title of the column whose texts are cut if the table is too wide.
            "" means that texts continue on the next line.
    """
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
    for title in head:
        # rich first narrows the columns that may wrap, which is only this one.
        table.add_column(
            title, overflow="fold", no_wrap=bool(shorten) and title != shorten
        )
    for row in rows:
        texts = []
        for title, cell in zip(head, row):
            cell = cell if isinstance(cell, Cell) else Cell(cell)
            text = Text(cell.text, STYLES.get(cell.mark, ""))
            if shorten and title == shorten:
                text.no_wrap, text.overflow = True, "ellipsis"
            texts.append(text)
        table.add_row(*texts)
    return table


@contextlib.contextmanager
def refreshed(
    console: Console,
) -> Iterator[Callable[[str, Sequence[str], Sequence[Sequence[str]]], None]]:
    """Yield a function that shows a title and a table in place of the previous ones."""
    with Live(console=console, auto_refresh=False) as live:
        yield lambda title, head, rows: live.update(
            Group(Text(title, no_wrap=True, overflow="ellipsis"), table_of(head, rows)),
            refresh=True,
        )
