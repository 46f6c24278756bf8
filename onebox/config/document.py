"""
Read TOML into single values, each with the line that it stands in.

toml 0.10.2 names no line for a value, takes some files that are not TOML and
fails on others with whatever its code runs into. So the structure (tables, keys,
where a value ends) is read here, strictly, and only single values are handed
to it. Dates, hexadecimal numbers, lists of lists and arrays of tables have no
use in onebox.toml and are refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Union

from onebox.config.values import reader
from onebox.config.wording import dotted, show, show_path

Path = tuple[str, ...]
Scalar = Union[str, int, float, bool]
Value = Union[Scalar, list[Scalar]]

_MAX_DEPTH = 6

_BLANK = re.compile(r"[ \t]*")
_GAP = re.compile(r"(?:[ \t\n]|\r\n|#[^\n]*)*")
_COMMENT = re.compile(r"#[^\n]*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_PLAIN = re.compile(r"[^\s,\[\]{}#=\"']+")
_LITERAL = re.compile(
    r"true|false"
    r"|[+-]?(?:0|[1-9](?:_?[0-9]){0,30})"
    r"(?:\.[0-9](?:_?[0-9]){0,30})?(?:[eE][+-]?[0-9]{1,4})?"
)
# What may stand between the quotes; the escapes themselves are toml's business.
_STRINGS = (
    ('"""', re.compile(r'"""((?:[^"\\]|\\[\s\S]|"{1,2}(?!"))*)"""')),
    ("'''", re.compile(r"'''((?:[^']|'{1,2}(?!'))*)'''")),
    ('"', re.compile(r'"((?:[^"\\\n]|\\[^\n])*)"')),
    ("'", re.compile(r"'([^'\n]*)'")),
)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)")


class MalformedError(ValueError):
    """This is not TOML, or not the part of it that is used here."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(problem)
        self.line = line
        self.problem = problem


@dataclass(frozen=True)
class Entry:
    """One value and its line."""

    value: Value
    line: int


@dataclass
class Document:
    """All values by their full path, and every table with its first line."""

    values: dict[Path, Entry] = field(default_factory=dict)
    tables: dict[Path, int] = field(default_factory=dict)


def read(text: str, both: frozenset[Path] = frozenset()) -> Document:
    """
    Return everything a TOML text says.

    *both* are paths that may be a value and hold tables at the same time, which
    TOML itself does not have.
    """
    return _Reader(text, both).document()


class _Reader:
    """Walks once through a text; *at* is how far it has come."""

    def __init__(self, text: str, both: frozenset[Path]) -> None:
        self.text = text
        self.parse = reader()
        self.both = both
        self.at = 0
        self.line = 1
        self.counted = 0
        self.found = Document()
        self.headers: dict[Path, int] = {}
        # Tables that only their own header or line may fill: reopening one is
        # an error in TOML.
        self.closed: dict[Path, int] = {}
        self.known: dict[str, Scalar] = {}

    def document(self) -> Document:
        control = _CONTROL.search(self.text)
        if control is not None:
            self.at = control.start()
            raise self._wrong("a control character, which TOML does not allow")
        table: Path = ()
        while True:
            self._skip(_GAP)
            if self.at == len(self.text):
                return self.found
            if self.text[self.at] == "[":
                table = self._header()
            else:
                self._pair(table, 0)
            self._skip(_BLANK)
            self._skip(_COMMENT)
            if self.at < len(self.text) and not self.text.startswith(
                ("\n", "\r\n"), self.at
            ):
                raise self._wrong("one key and value per line, nothing after it")

    def _header(self) -> Path:
        line = self._line()
        if self.text.startswith("[[", self.at):
            raise self._wrong("[[tables]] have no use here; write [table]")
        self.at += 1
        path = self._key()
        if not self._take("]"):
            raise self._wrong("a table's name ends with ]")
        if path in self.headers or path in self.closed:
            before = abs(self.headers.get(path) or self.closed[path])
            raise MalformedError(
                line, f"[{dotted(path)}] is already there, in line {before}"
            )
        self._open(path, line)
        self.headers[path] = line
        return path

    def _pair(self, table: Path, depth: int) -> None:
        line = self._line()
        key = self._key()
        path = table + key
        if not self._take("="):
            raise MalformedError(
                line, f"{show_path(path)}: wants = and a value after it"
            )
        if depth + len(key) > _MAX_DEPTH:
            raise MalformedError(line, "tables nested too deep")
        if path in self.found.values:
            before = self.found.values[path].line
            raise MalformedError(
                line, f"{show_path(path)}: already set in line {before}"
            )
        if path in self.found.tables and path not in self.both:
            before = self.found.tables[path]
            raise MalformedError(
                line, f"{show_path(path)}: is a table already, from line {before}"
            )
        for end in range(len(table) + 1, len(path)):
            if path[:end] in self.headers:
                before = self.headers[path[:end]]
                raise MalformedError(
                    line, f"[{dotted(path[:end])}] is already there, in line {before}"
                )
        self._open(path[:-1], line)
        for end in range(len(table) + 1, len(path)):
            self.closed.setdefault(path[:end], line)
        self._skip(_BLANK)
        if self.text.startswith("{", self.at):
            self._inline(path, line, depth + len(key))
        elif self.text.startswith("[", self.at):
            self.found.values[path] = Entry(self._list(path), line)
        else:
            self.found.values[path] = Entry(self._scalar(path), line)

    def _open(self, path: Path, line: int) -> None:
        """Make sure that *path* and all above it are tables."""
        for end in range(1, len(path) + 1):
            part = path[:end]
            if part in self.found.values and part not in self.both:
                before = self.found.values[part].line
                raise MalformedError(
                    line, f"{show_path(part)}: is a value already, in line {before}"
                )
            if self.closed.get(part, line) < 0:
                raise MalformedError(
                    line,
                    f"{show_path(part)}: is complete already, in line "
                    f"{-self.closed[part]}",
                )
            self.found.tables.setdefault(part, line)

    def _inline(self, path: Path, line: int, depth: int) -> None:
        if depth >= _MAX_DEPTH:
            raise MalformedError(line, "tables nested too deep")
        self.at += 1
        self._open(path, line)
        self._skip(_BLANK)
        while not self._take("}"):
            self._pair(path, depth)
            self._skip(_BLANK)
            if self._take(","):
                self._skip(_BLANK)
                if not self.text.startswith("}", self.at):
                    continue
            elif self.text.startswith("}", self.at):
                continue
            raise self._wrong(
                f"{show_path(path)}: {{ … }} wants key = value, key = value on one line"
            )
        # Negative: nothing may be added any more, not even a table below it.
        self.closed[path] = -line

    def _list(self, path: Path) -> list[Scalar]:
        start = self._line()
        self.at += 1
        items: list[Scalar] = []
        while True:
            self._skip(_GAP)
            if self._take("]"):
                return items
            if self.at == len(self.text):
                raise MalformedError(start, f"{show_path(path)}: the list has no ]")
            if self.text[self.at] in "[{":
                raise self._wrong(f"{show_path(path)}: lists hold plain values only")
            items.append(self._scalar(path))
            self._skip(_GAP)
            if self.at == len(self.text):
                continue
            if not self._take(",") and not self.text.startswith("]", self.at):
                raise self._wrong(
                    f"{show_path(path)}: values in a list have commas between them"
                )

    def _scalar(self, path: Path) -> Scalar:
        line = self._line()
        raw = self._raw(path)
        if raw not in self.known:
            try:
                value = self.parse(raw)
            except ValueError:
                value = None
            if not isinstance(value, (str, int, float)):
                raise MalformedError(
                    line,
                    f"{show_path(path)}: cannot be read; a backslash in "
                    '"…" is written \\\\',
                )
            self.known[raw] = value
        return self.known[raw]

    def _raw(self, path: Path) -> str:
        """Take the next value as it is written."""
        for quote, pattern in _STRINGS:
            if not self.text.startswith(quote, self.at):
                continue
            match = pattern.match(self.text, self.at)
            if match is None:
                raise self._wrong(f"{show_path(path)}: the text has no closing {quote}")
            self.at = match.end()
            return match.group()
        match = _PLAIN.match(self.text, self.at)
        if match is None:
            raise self._wrong(f"{show_path(path)}: wants a value after =")
        if _LITERAL.fullmatch(match.group()) is None:
            raise self._wrong(
                f"{show_path(path)}: {show(match.group())} is not a value; "
                "texts stand in quotes"
            )
        self.at = match.end()
        return match.group()

    def _key(self) -> Path:
        parts: list[str] = []
        while True:
            self._skip(_BLANK)
            parts.append(self._key_part())
            self._skip(_BLANK)
            if not self._take("."):
                return tuple(parts)
            # What is read of a longer one grows with the square of its length.
            if len(parts) == _MAX_DEPTH:
                raise self._wrong("tables nested too deep")

    def _key_part(self) -> str:
        match = _BARE_KEY.match(self.text, self.at)
        if match is not None:
            self.at = match.end()
            return match.group()
        if self.text.startswith(('"', "'"), self.at) and not self.text.startswith(
            ('"""', "'''"), self.at
        ):
            return str(self._scalar(()))
        raise self._wrong("wants key = value, or a [table]")

    def _take(self, token: str) -> bool:
        if not self.text.startswith(token, self.at):
            return False
        self.at += len(token)
        return True

    def _skip(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self.text, self.at)
        if match is not None:
            self.at = match.end()

    def _line(self) -> int:
        """Count lines from where they were last counted: files can be long."""
        if self.at < self.counted:
            self.line, self.counted = 1, 0
        self.line += self.text.count("\n", self.counted, self.at)
        self.counted = self.at
        return self.line

    def _wrong(self, problem: str) -> MalformedError:
        return MalformedError(self._line(), problem)
