"""Name the copies that are kept of files when outputs or settings replace them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable

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
