"""Read the parameters of units from --over flags and from a CSV file."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

from onebox.errors import InputError, UsageError
from onebox.settings.checks import InvalidValue
from onebox.settings.parameters import (
    MOST_UNITS,
    check_distinct,
    check_name,
    parse_range,
)
from onebox.settings.quoting import show
from onebox.store.atomic_files import read_regular

# The plan of a run has at most this many bytes of text, so a table cannot have more.
MOST_BYTES = 32 << 20

Row = tuple[str, ...]
# This looks like a range, but has fractions.
_NO_RANGE = re.compile(r"-?[0-9.]+(?:e-?[0-9]+)?\.\.[-0-9.e]+")
_EXAMPLE = "for example --over=seed=1..3 or --over=alpha=0.1,1,10"


def parse_over(text: str) -> tuple[str, Row]:
    """
    Return the name and the values of a flag such as `seed=1..3` or `alpha=0.1,1,10`.

    A value with a comma is in double quotes, as in a CSV file.

    Raises:
        UsageError: The text is not of this form, or a value is listed twice.
    """
    name, sign, listed = text.partition("=")
    flag = f"--over={show(text)[1:-1]}"
    if not sign:
        raise UsageError(f"{flag}: expected NAME=VALUES", next=_EXAMPLE)
    try:
        check_name(name)
        values = parse_range(listed) or _listed(listed)
        check_distinct(values)
    except InvalidValue as problem:
        raise UsageError(f"{flag}: {problem}", next=problem.next or _EXAMPLE) from None
    return name, values


def _listed(text: str) -> Row:
    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as problem:
        raise InvalidValue(f"cannot be split at commas: {problem}") from None
    values = tuple(rows[0]) if rows else ()
    if not all(values) or not values:
        raise InvalidValue("has an empty value")
    for value in values:
        check_text(value)
    if len(values) == 1 and _NO_RANGE.fullmatch(values[0]):
        raise InvalidValue(
            f"{show(values[0])} is no range: it has whole numbers, such as 1..50 or "
            "0..100..5",
            next="list the values: --over=alpha=0.1,0.2,0.5",
        )
    return values


def check_text(value: str) -> None:
    """
    Refuse text that a variable or a JSON file cannot hold, or a terminal runs.

    Raises:
        InvalidValue: It has a control character (a line break or tab is none of these),
            or is not valid UTF-8.
    """
    if value.isprintable():
        return
    for character in value:
        if "\ud800" <= character <= "\udfff":
            raise InvalidValue(f"{show(value)} is not valid UTF-8")
        if (character < " " and character not in "\n\t\r") or character == "\x7f":
            raise InvalidValue(f"{show(value)} contains a control character")


def read_csv(path: Path, shown_name: str, place: str = "") -> tuple[Row, list[Row]]:
    """
    Return the names and rows of a CSV file: first the names, then a unit in each line.

    A byte order mark, blank lines and all ends of lines are accepted. Spaces before a
    value are not part of it, unless it is in double quotes.

    Args:
        shown_name: The file's name in messages.

        place: Where the file is named, before a message that it cannot be read.

    Raises:
        InputError: The file cannot be read, or is no such table.
    """
    table = _Table(shown_name)
    reader = csv.reader(
        io.StringIO(_text(path, shown_name, place), newline=""),
        skipinitialspace=True,
        strict=True,
    )
    line = 1
    try:
        for row in reader:
            if len(row) > 1 or (row and row[0].strip()):
                table.add(tuple(row), line)
            line = reader.line_num + 1
    except csv.Error as problem:
        raise table.error(line, f"is not a line of CSV: {problem}") from None
    if table.names is None:
        raise InputError(
            f"{shown_name} is empty",
            next="its first line has the names, such as seed,alpha",
        )
    if not table.rows:
        raise InputError(f"{shown_name} has names, but no line with values")
    return table.names, list(table.rows)


class _Table:
    """The lines of a CSV file; *rows* has the number of the line of each row."""

    def __init__(self, shown_name: str) -> None:
        self.shown_name = shown_name
        self.names: Row | None = None
        self.rows: dict[Row, int] = {}

    def error(self, line: int, problem: str, next: str = "") -> InputError:
        return InputError(f"{self.shown_name}:{line}: {problem}", next=next)

    def add(self, row: Row, line: int) -> None:
        """Add a row; the first one has the names. Raises InputError."""
        if self.names is None:
            self.names = self._names(row, line)
            return
        if len(row) != len(self.names):
            raise self.error(
                line, f"has {_count(len(row))}, but {len(self.names)} names are above"
            )
        try:
            for value in row:
                check_text(value)
        except InvalidValue as problem:
            raise self.error(line, str(problem)) from None
        if row in self.rows:
            raise self.error(line, f"is equal to line {self.rows[row]}")
        if len(self.rows) == MOST_UNITS:
            raise self.error(line, f"is unit {MOST_UNITS + 1:,}, which is too many")
        self.rows[row] = line

    def _names(self, row: Row, line: int) -> Row:
        names = tuple(name.strip() for name in row)
        for number, name in enumerate(names):
            try:
                check_name(name)
            except InvalidValue as wrong:
                problem = str(wrong)
                hint = "the first line has the names, with commas between them"
                if not name:
                    hint = "name it, or leave it out (pandas: to_csv(…, index=False))"
                    problem = f"column {number + 1} has no name"
                raise self.error(line, problem, hint) from None
            if name in names[:number]:
                raise self.error(line, f"{name} is there twice")
        return names


def _count(columns: int) -> str:
    return f"{columns} value{'s' * (columns != 1)}"


def _text(path: Path, shown_name: str, place: str) -> str:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise InputError(
                f"{place}{shown_name} is larger than {MOST_BYTES >> 20} MB"
            )
        data = read_regular(path)
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or "not a path"
        raise InputError(f"{place}{shown_name} cannot be read: {reason}") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = data.count(b"\n", 0, problem.start) + 1
        raise InputError(
            f"{shown_name}:{line}: is not UTF-8",
            next="save it as CSV in UTF-8",
        ) from None
