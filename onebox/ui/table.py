"""Tables of requested output on a terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

STYLES = {"done": "green", "failed": "bold red", "kept": "yellow", "warn": "yellow"}
GAP = 2
# The column whose texts may be cut keeps at least this width.
SHORTENED = 12
# A text of at most this width, such as "2 min 57 s" or "311 MB", is not broken.
SHORT = 12


@dataclass(frozen=True)
class Cell:
    """A text in a table, with the colour of *mark*; "" means no colour."""

    text: str
    mark: str = ""


def table_of(
    head: Sequence[str],
    rows: Sequence[Sequence[str | Cell]],
    width: int,
    shorten: str = "",
) -> Table:
    """
    Return a table for a terminal.

    A text continues on the next line after a word, never within one. If there is not
    enough room for that, each row is printed as lines of one value.

    Args:
        width: The number of columns of the terminal.

        shorten: The title of the column whose texts are cut if the table is too wide.
            "" means that all texts continue on the next line.
    """
    cells = [[c if isinstance(c, Cell) else Cell(c) for c in row] for row in rows]
    widths = _widths(head, cells, width, shorten)
    if widths is None:
        return _records(head, cells)
    table = Table(box=None, padding=(0, GAP, 0, 0), header_style="bold", pad_edge=False)
    for title, columns in zip(head, widths):
        table.add_column(title, overflow="fold", width=columns)
    for row in cells:
        texts = [_text(cell) for cell in row]
        for title, text in zip(head, texts):
            if shorten and title == shorten:
                text.no_wrap, text.overflow = True, "ellipsis"
        table.add_row(*texts)
    return table


@contextlib.contextmanager
def refreshed(
    console: Console,
) -> Iterator[Callable[[str, Sequence[str], Sequence[Sequence[str]]], None]]:
    """Yield a function that shows a title and a table in place of the previous ones."""
    with Live(console=console, auto_refresh=False) as live:
        yield lambda title, head, rows: live.update(
            Group(
                Text(title, no_wrap=True, overflow="ellipsis"),
                table_of(head, rows, console.width),
            ),
            refresh=True,
        )


def _widths(
    head: Sequence[str], rows: Sequence[Sequence[Cell]], width: int, shorten: str
) -> list[int] | None:
    """Return the widths of the columns; None if a word would have to be broken."""
    columns = [[title, *(row[n].text for row in rows)] for n, title in enumerate(head)]
    widths = [max(map(cell_len, texts)) for texts in columns]
    least = [
        max(cell_len(part) for text in texts for part in _unbroken(text))
        for texts in columns
    ]
    excess = sum(widths) + GAP * (len(widths) - 1) - width
    if shorten in head:
        n = head.index(shorten)
        cut = max(min(excess, widths[n] - SHORTENED), 0)
        widths[n], excess = widths[n] - cut, excess - cut
        least[n] = widths[n]
    for _ in range(excess):
        room = [(now, n) for n, now in enumerate(widths) if now > least[n]]
        if not room:
            return None
        widths[max(room)[1]] -= 1
    return widths


def _unbroken(text: str) -> Sequence[str]:
    """Return the parts of a text that stay on one line: its words, or a short text."""
    return [text] if cell_len(text) <= SHORT else text.split()


def _records(head: Sequence[str], rows: Sequence[Sequence[Cell]]) -> Table:
    """Return a table with a line for each value, and an empty one between rows."""
    table = Table.grid(padding=(0, GAP, 0, 0))
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for n, row in enumerate(rows):
        if n:
            table.add_row("", "")
        for title, cell in zip(head, row):
            if cell.text:
                table.add_row(title, _text(cell))
    return table


def _text(cell: Cell) -> Text:
    return Text(cell.text, STYLES.get(cell.mark, ""))
