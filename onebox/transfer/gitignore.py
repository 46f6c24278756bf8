"""What git would track, where there is no git to ask."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import NamedTuple

# The classes that git's own matcher knows, for bytes read as Latin-1.
CLASSES = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "blank": " \\t",
    "cntrl": "\\x00-\\x1f\\x7f",
    "digit": "0-9",
    "graph": "\\x21-\\x7e",
    "lower": "a-z",
    "print": "\\x20-\\x7e",
    "punct": "!-/:-@\\[-`{-~",
    "space": " \\t\\n\\v\\f\\r",
    "upper": "A-Z",
    "xdigit": "0-9A-Fa-f",
}


class Rule(NamedTuple):
    """A line of a `.gitignore`; *whole* rules look at the path, others at the name."""

    pattern: re.Pattern[str]
    again: bool
    folders: bool
    whole: bool


def tracked_without_git(base: bytes, tops: Iterable[bytes]) -> set[bytes]:
    """
    Return the files below these paths that no `.gitignore` excludes.

    As in git, nothing below an excluded folder can be included again.
    """
    found: set[bytes] = set()
    for top in tops:
        rules: list[tuple[int, list[Rule]]] = []
        folder = b""
        for part in top.split(b"/") if top else ():
            rules = [*rules, (len(folder), read_rules(os.path.join(base, folder)))]
            folder = folder + b"/" + part if folder else part
            if _excluded(folder, os.path.isdir(os.path.join(base, folder)), rules):
                break
        else:
            full = os.path.join(base, top)
            if os.path.isdir(full) and not os.path.islink(full):
                _walk(base, top, rules, found)
            else:
                found.add(top)
    return found


def read_rules(folder: bytes) -> list[Rule]:
    """Return the rules of a folder's `.gitignore`, the last one first."""
    try:
        fd = os.open(os.path.join(folder, b".gitignore"), os.O_RDONLY | os.O_NOFOLLOW)
        with open(fd, "rb") as file:
            data = file.read()
    except OSError:
        return []
    if data.startswith(b"\xef\xbb\xbf"):
        data = data[3:]
    lines = data.decode("latin-1").split("\n")
    lines = [line[:-1] if line.endswith("\r") else line for line in lines]
    rules = [rule(line) for line in lines]
    return [found for found in reversed(rules) if found is not None]


def rule(line: str) -> Rule | None:
    """Turn a line into a rule; None for a comment, or what can match nothing."""
    if line.startswith("#"):
        return None
    line = _without_spaces(line)
    again = line.startswith("!")
    line = line[1:] if again else line
    folders = line.endswith("/")
    line = line[:-1] if folders else line
    if not line:
        return None
    whole = "/" in line
    pattern = translate(line[1:] if line.startswith("/") else line, whole)
    return None if pattern is None else Rule(pattern, again, folders, whole)


def translate(glob: str, whole: bool) -> re.Pattern[str] | None:
    """Turn one of git's patterns into a regular expression; None if it is broken."""
    out = []
    at = 0
    while at < len(glob):
        char = glob[at]
        at += 1
        if char == "*":
            end = at
            while glob[end : end + 1] == "*":
                end += 1
            starts = at == 1 or glob[at - 2] == "/"
            if whole and end - at >= 1 and starts and glob[end : end + 1] in ("", "/"):
                if end == len(glob):
                    out.append(".*")
                else:
                    out.append("(?:.*/)?")
                    end += 1
            else:
                out.append("[^/]*")
            at = end
        elif char == "?":
            out.append("[^/]")
        elif char == "[":
            bracket = _bracket(glob, at)
            if bracket is None:
                return None
            part, at = bracket
            out.append(part)
        elif char == "\\":
            if at == len(glob):
                return None
            out.append(re.escape(glob[at]))
            at += 1
        else:
            out.append(re.escape(char))
    return re.compile("".join(out), re.DOTALL)


def _walk(
    base: bytes, top: bytes, rules: list[tuple[int, list[Rule]]], found: set[bytes]
) -> None:
    # No recursion: folders may be nested deeper than Python's stack.
    todo = [(top, rules)]
    while todo:
        folder, above = todo.pop()
        full = os.path.join(base, folder) if folder else base
        own = read_rules(full)
        rules = [*above, (len(folder), own)] if own else above
        with os.scandir(full) as items:
            for item in items:
                path = folder + b"/" + item.name if folder else item.name
                is_folder = item.is_dir(follow_symlinks=False)
                if item.name == b".git" or _excluded(path, is_folder, rules):
                    continue
                if is_folder:
                    todo.append((path, rules))
                else:
                    found.add(path)


def _excluded(path: bytes, folder: bool, rules: list[tuple[int, list[Rule]]]) -> bool:
    name = path.rpartition(b"/")[2].decode("latin-1")
    for length, lines in reversed(rules):
        below = path[length + 1 if length else 0 :].decode("latin-1")
        for line in lines:
            if line.folders and not folder:
                continue
            if line.pattern.fullmatch(below if line.whole else name):
                return not line.again
    return False


def _without_spaces(line: str) -> str:
    """Drop the spaces at a line's end, but for one that is escaped."""
    end = 0
    at = 0
    while at < len(line):
        if line[at] == "\\":
            at += 2
            end = min(at, len(line))
            continue
        at += 1
        if line[at - 1] != " ":
            end = at
    return line[:end]


def _bracket(glob: str, at: int) -> tuple[str, int] | None:
    """Translate what follows a "["; return it and where it ends."""
    negated = glob[at : at + 1] in ("!", "^") and glob[at : at + 1] != ""
    at += negated
    parts = []
    previous = ""
    first = True
    while True:
        char = glob[at : at + 1]
        if not char:
            return None
        if char == "]" and not first:
            break
        first = False
        if char == "[" and glob[at + 1 : at + 2] == ":":
            end = glob.find("]", at + 2)
            if end < 0:
                return None
            if glob[end - 1] == ":" and end - 1 >= at + 2:
                known = CLASSES.get(glob[at + 2 : end - 1])
                if known is None:
                    return None
                parts.append(known)
                at, previous = end + 1, ""
                continue
        ranged = char == "-" and previous and glob[at + 1 : at + 2] not in ("", "]")
        if ranged:
            at += 1
            char = glob[at]
        if char == "\\":
            at += 1
            char = glob[at : at + 1]
            if not char:
                return None
        at += 1
        if ranged:
            if previous <= char:
                parts.append(f"{re.escape(previous)}-{re.escape(char)}")
            previous = ""
        else:
            parts.append(re.escape(char))
            previous = char
    inside = "".join(parts)
    # Git's classes never match a slash, not even the negated ones.
    return f"(?!/)[{'^' if negated else ''}{inside}]", at + 1
