"""
Read the values of a file such as onebox.toml, and the line of each value.

The `toml` package parses the file. It does not say in which line a value is, so a scan
of the text finds the lines. The scan also refuses text that toml 0.10.2 accepts but
reads wrongly.
"""

from __future__ import annotations

import contextlib
import re
import stat
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from onebox.errors import ConfigError
from onebox.settings.quoting import dotted, show_path

FILE = "onebox.toml"
# The size is limited because the parse time of toml grows, for some files, with the
# square of the length.
_MAX_BYTES = 1 << 16
_MOST_PARTS = 6

TomlPath = tuple[str, ...]

_STRING = (
    r'"""(?:[^"\\]|\\[\s\S]|"{1,2}(?!"))*"{3,5}'
    r"|'''(?:[^']|'{1,2}(?!'))*'{3,5}"
    r'|"(?:[^"\\\n]|\\[^\n])*"'
    r"|'[^'\n]*'"
)
_PART = r"""(?:[^\s\[\]{}"'=#.,]+|"(?:[^"\\\n]|\\[^\n])*"|'[^'\n]*')"""
_KEY = rf"{_PART}(?:[ \t]*\.[ \t]*{_PART})*"
_GAP = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_STATEMENT = re.compile(rf"\[[ \t]*(?P<table>{_KEY})[ \t]*\]|(?P<key>{_KEY})[ \t]*=")
_PIECE = re.compile(rf"{_STRING}|#[^\n]*|[\[\]{{}}]|\n|[^\s\"'#\[\]{{}}]+|[ \t\r]+")
# This matches strings in double quotes that toml reads wrongly. toml takes a decoded
# \u005c (a backslash) as the start of another escape. It also removes two quotes at the
# start of a string's content, even if the second is the closing quote.
_QUOTE = r'\\(?:"|u0022|U00000022)'
_MISREAD = re.compile(
    rf'"(?!"")(?:{_QUOTE}(?:{_QUOTE}|"$)|[\s\S]*\\(?:u|U0000)005[cC])'
)
# toml takes a backslash at the end of a line in ''' for one that joins two lines, as it
# does in """.
_MISREAD_LITERAL = re.compile(r"'''[\s\S]*\\[ \t\r]*\n")

# Between brackets, toml wrongly ends a string at a comma that is the first character of
# the string or follows an escaped quote.
_MISREAD_IN_BRACKETS = re.compile(r"""["'][ \t]*,|[\s\S]*\\"[ \t]*,""")
# It also ends a key between braces at a = or a comma.
_MISREAD_KEY = re.compile(r"""["'][^\n]*[=,]""")
# A number or boolean of TOML, in a list whose values become texts.
_DECIMAL = r"[0-9](?:_?[0-9])*"
_SCALAR = re.compile(
    rf"true|false|[+-]?(?:inf|nan|(?:0|(?!0){_DECIMAL})(?:\.{_DECIMAL})?"
    rf"(?:[eE][+-]?{_DECIMAL})?)|0x[0-9A-Fa-f]+|0o[0-7]+|0b[01]+"
)
_ASSIGNED = re.compile(r"[ \t]*=")
_VALUE = re.compile(rf"[ \t]*({_STRING})")


def error(
    source: str, label: str, problem: str, next: str = "", meant: str = ""
) -> ConfigError:
    """
    Return an error whose one line contains *source*, *label* and *problem*.

    *source* is a place such as "onebox.toml:3", and *label* is the setting's name.
    *meant* is the value that was probably meant.
    """
    line = ": ".join(part for part in (source, label, problem) if part)
    found = ConfigError(line, next=next)
    found.source, found.meant = source, meant
    return found


@dataclass(frozen=True)
class TomlEntry:
    """One value in onebox.toml, or, if *value* is None, the start of a table."""

    path: TomlPath
    value: object
    line: int


class Malformed(ValueError):
    """The file is not TOML, or it is TOML that the `toml` package reads wrongly."""

    def __init__(self, line: int, label: str, problem: str) -> None:
        super().__init__(problem)
        self.line = line
        self.label = label
        self.problem = problem


def read(
    path: Path,
    name: str,
    *,
    required_by: str = "",
    tables: Collection[str] | None = None,
) -> list[TomlEntry]:
    """
    Return the entries of a file of settings, in the order of its lines.

    Args:
        name: The file's name in messages.

        required_by: The name of the variable or call that names the file, "" if the
            file is optional. An optional file that does not exist has no entries.

        tables: See `parse`.

    Raises:
        ConfigError: The file cannot be read, is not TOML, or is required and does not
            exist.
    """
    try:
        return parse(_text(path, name, required_by), tables)
    except Malformed as problem:
        raise error(f"{name}:{problem.line}", problem.label, problem.problem) from None


def parse(text: str, tables: Collection[str] | None = None) -> list[TomlEntry]:
    """
    Return the entries of a TOML text, in the order of its lines.

    Args:
        tables: The names that a top-level table or key can have, None for any name. In
            the lists of others, values become texts, so that a list which `toml` cannot
            read does not hide that the name is wrong.

    Raises:
        Malformed: The text is not TOML, or it is TOML that `toml` reads wrongly.
    """
    # Python's reader does this too. toml keeps a first line that ends with \r\n.
    lines, labels, text = _scan(text.replace("\r\n", "\n"), tables)
    if not lines:
        return []
    # The package is imported only if there is something to parse.
    import toml

    try:
        tree = toml.loads(text)
    except Exception as problem:
        # Every exception is caught, because toml reports some mistakes in a file by an
        # IndexError, TypeError or RecursionError.
        line = getattr(problem, "lineno", 1)
        before = [at for at in labels if at <= line]
        raise Malformed(
            line,
            labels[before[-1]] if before else "",
            _reason(text),
        ) from None
    entries = [
        TomlEntry(path, value, _line(path, lines)) for path, value in flat((), tree)
    ]
    return sorted(entries, key=lambda entry: (entry.line, len(entry.path)))


def _reason(text: str) -> str:
    """Return why a text cannot be read, which may be a limit of the package."""
    # Python has a parser of its own from 3.11 on. It is not used for the values,
    # because a project's file must mean the same with every Python.
    if sys.version_info >= (3, 11):
        import tomllib

        with contextlib.suppress(ValueError, RecursionError):
            tomllib.loads(text)
            return (
                "is TOML that the toml package cannot read: write it with spaces "
                "around =, and with lists of one type"
            )
    return "is not valid TOML: write key = value, strings in quotes, lists of one type"


def flat(
    table: TomlPath, values: Mapping[str, object]
) -> Iterator[tuple[TomlPath, object]]:
    """Yield the path and value of each entry of nested tables; a table has no value."""
    for name, value in values.items():
        path = (*table, str(name))
        if isinstance(value, dict):
            yield path, None
            yield from flat(path, value)
        else:
            yield path, value


def _line(path: TomlPath, lines: Mapping[TomlPath, int]) -> int:
    """Return the line of a key; for a key in an inline table, that of the table."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)


def _scan(
    text: str, tables: Collection[str] | None
) -> tuple[dict[TomlPath, int], dict[int, str], str]:
    """
    Find the lines of all tables and keys outside of inline tables.

    Returns:
        Two mappings: from each table and key to its first line, and from each line in
        which a statement begins to the name of the statement in messages. The text for
        toml comes last; in it, all values in the lists of [map], and of what is not in
        *tables*, are strings.
    """
    read: list[str] = []
    copied = 0
    lines: dict[TomlPath, int] = {}
    labels: dict[int, str] = {}
    headers: dict[TomlPath, int] = {}
    keys: dict[TomlPath, int] = {}
    table: TomlPath = ()
    at = _end_of_gap(text, 0)
    while at < len(text):
        line = text.count("\n", 0, at) + 1
        match = _STATEMENT.match(text, at)
        if match is None:
            raise Malformed(line, "", "expected key = value, or a [table]")
        if match["table"] is not None:
            path = table = _parts(match["table"])
            label, seen = f"[{dotted(path)}]", headers
        else:
            parts = _parts(match["key"])
            path = table + parts
            label, seen = show_path(path), keys
            string = _VALUE.match(text, match.end())
            # If a string of several lines has the key a.b, toml sets b and not a.b.
            if len(parts) > 1 and string and "\n" in string[1]:
                raise Malformed(
                    line,
                    label,
                    "toml cannot read a string of several lines here; write "
                    f"[{dotted(path[:-1])}] above it",
                )
        labels[line] = label
        if len(path) > _MOST_PARTS:
            raise Malformed(line, "", "tables are nested too deep")
        _refuse_old_sizes(path, line)
        if path in seen:
            raise Malformed(line, label, f"is already in line {seen[path]}")
        seen[path] = line
        for length in range(1, len(path) + 1):
            lines.setdefault(path[:length], line)
        end = _end_of_statement(text, match.end(), line, label)
        top = path[2:3] if path[0] == "profile" else path[:1]
        if "map" in top or (tables is not None and not {*top} <= {*tables}):
            read += [
                text[copied : match.end()],
                _lists_of_texts(text[match.end() : end]),
            ]
            copied = end
        at = _end_of_gap(text, end)
    return lines, labels, "".join([*read, text[copied:]])


def _lists_of_texts(value: str) -> str:
    """
    Return a value with the numbers and booleans in its lists as strings.

    The parameters of a unit are texts, as they are typed: 1e-5 stays 1e-5. And toml
    refuses lists of several types.
    """
    found, brackets = [], [""]
    for match in _PIECE.finditer(value):
        piece = match.group()
        if piece in ("[", "{"):
            brackets.append(piece)
        elif piece in ("]", "}") and len(brackets) > 1:
            brackets.pop()
        elif brackets[-1] == "[" and piece[0] not in "\"'#":
            piece = re.sub(r"[^,\s]+", _as_string, piece)
        found.append(piece)
    return "".join(found)


def _as_string(match: re.Match[str]) -> str:
    text = match.group()
    if not _SCALAR.fullmatch(text):
        return text
    if text[:2] in ("0x", "0o", "0b"):
        return f'"{int(text, 0)}"'
    return '"' + text.replace("_", "") + '"'


def _end_of_gap(text: str, at: int) -> int:
    match = _GAP.match(text, at)
    assert match is not None
    return match.end()


def _end_of_statement(text: str, at: int, line: int, label: str) -> int:
    """Return where a statement ends: at the first line end outside all brackets."""
    depth = 0
    while at < len(text):
        match = _PIECE.match(text, at)
        if match is None:
            raise Malformed(line, label, "a string has no closing quote")
        piece = match.group()
        if piece == "\n" and depth <= 0:
            break
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(piece, 0)
        if depth > _MOST_PARTS:
            raise Malformed(line, label, "brackets are nested too deep")
        if _MISREAD.match(piece):
            raise Malformed(
                line,
                label,
                "toml cannot read this escaped string; write it in single quotes",
            )
        if _MISREAD_LITERAL.match(piece):
            raise Malformed(
                line,
                label,
                "toml cannot read a line that ends with \\ in '''; write \\\\ in "
                '"""',
            )
        if depth > 0 and _MISREAD_IN_BRACKETS.match(piece):
            raise Malformed(
                line,
                label,
                'toml cannot read a string with a comma at its start or after \\" '
                "between brackets",
            )
        at = match.end()
        if depth > 0 and _MISREAD_KEY.match(piece) and _ASSIGNED.match(text, at):
            raise Malformed(
                line,
                label,
                "toml cannot read a key with = or , between braces; write the table in "
                "lines",
            )
    if depth > 0:
        raise Malformed(line, label, "a bracket is not closed")
    return at


def _parts(key: str) -> TomlPath:
    return tuple(
        part[1:-1] if part[0] in "\"'" else part for part in re.findall(_PART, key)
    )


def _refuse_old_sizes(path: TomlPath, line: int) -> None:
    """Raise Malformed for [vm.NAME] and vm.default, the former spelling of sizes."""
    if path[0] != "vm" or len(path) < 2:
        return
    if path[1] == "default":
        problem = 'vm.default is now written vm = "NAME", above all tables'
    else:
        problem = f"[{dotted(path[:2])}] is now written [{dotted(('size', path[1]))}]"
    raise Malformed(line, "", problem)


def _text(path: Path, name: str, required_by: str) -> str:
    """Return the file's text; "" if an optional file does not exist."""
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            kind = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
            raise error(name, "", f"is {kind}; expected a file")
        with path.open("rb") as stream:
            data = stream.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        if required_by:
            raise error(required_by, "", f"{name} does not exist") from None
        if path.is_symlink():
            raise error(name, "", "is a link to a missing file") from None
        return ""
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or "not a path"
        raise error(name, "", f"cannot be read: {reason}") from None
    if len(data) > _MAX_BYTES:
        raise error(name, "", f"is larger than {_MAX_BYTES >> 10} KB")
    if data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        problem_text = "begins with a byte order mark; save it as UTF-8 without one"
        raise error(f"{name}:1", "", problem_text)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as problem:
        line = data.count(b"\n", 0, problem.start) + 1
        raise error(f"{name}:{line}", "", "is not UTF-8") from None
