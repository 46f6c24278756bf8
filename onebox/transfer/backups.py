"""Name, and keep, copies of files that outputs or files of onebox replace."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from onebox.store.atomic_files import write_atomically

_NUMBER = rb"(?:[2-9]|[1-9][0-9]+)?"


def free_name(name: bytes, exists: Callable[[bytes], bool]) -> bytes:
    """
    Return the first of `name~`, `name~2`, … that does not exist.

    >>> free_name(b"a", [b"a~", b"a~2"].__contains__)
    b'a~3'
    """
    numbers = itertools.chain([b""], (b"%d" % n for n in itertools.count(2)))
    return next(free for free in (name + b"~" + n for n in numbers) if not exists(free))


def backups_of(paths: Iterable[bytes]) -> re.Pattern[bytes]:
    """
    Return a pattern that matches the backup of one of *paths* at or above a path.

    >>> pattern = backups_of([b"a", b"b/c"])
    >>> [path for path in (b"a", b"a~", b"b/c~2/d", b"x/a~") if pattern.match(path)]
    [b'a~', b'b/c~2/d']
    """
    names = b"|".join(re.escape(path) for path in paths if path)
    return re.compile(rb"(?:%s)~%s(?=/|\Z)" % (names or rb"(?!)", _NUMBER))


def keep_copy(path: Path, text: str) -> str:
    """
    Keep a file that is about to be replaced by another text, under a new name.

    Returns:
        The new name, "" if there is no such file or if it has that text already.
    """
    with suppress(FileNotFoundError):
        before = path.read_bytes()
        if before != text.encode():
            name = free_name(os.fsencode(path), os.path.lexists)
            free = Path(os.fsdecode(name))
            write_atomically(free, before, mode=path.stat().st_mode & 0o777)
            return free.name
    return ""
