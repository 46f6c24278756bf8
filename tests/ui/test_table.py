"""A table fits the terminal without a broken value."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from onebox.ui.table import table_of

HEAD = ("name", "size", "age", "used by")
ROW = ("environment-of-geo", "311 MB", "2 min 57 s", "the box of geo, and another one")


@pytest.mark.parametrize("width", [80, 50, 42, 30])
def test_short_value_is_not_broken(width: int) -> None:
    """A number stays beside its unit; longer texts continue on the next line."""
    console = Console(file=io.StringIO(), width=width)
    with console.capture() as printed:
        console.print(table_of(HEAD, [ROW], width))

    lines = printed.get().splitlines()
    assert any("311 MB" in line for line in lines)
    assert any("2 min 57 s" in line for line in lines)
    assert all(len(line.rstrip()) <= width for line in lines)
