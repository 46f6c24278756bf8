"""Format numbers, times and names for messages."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Sequence
from pathlib import Path

# Each unit is 1024 times the one before it, because clouds list memory and disks in
# units of 2**30 bytes and call them GB.
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
# A path with more characters than this is shortened in the middle.
LONGEST_PATH = 200

# Two clocks count as equal if they differ by at most this many seconds.
CLOCK_SECONDS = 60.0


def clock_differs(ahead: float) -> str:
    """
    Return a phrase that compares this machine's clock with another clock.

    Args:
        ahead: The seconds by which the other clock is ahead of this machine's clock.
    """
    where = "behind" if ahead > 0 else "ahead of"
    return f"this machine's clock is {seconds(abs(ahead))} {where}"


def byte_count(count: float) -> str:
    """
    Format a number of bytes.

    >>> byte_count(0), byte_count(1536), byte_count(256 * 2**30)
    ('0 B', '1.5 kB', '256 GB')
    """
    for unit in _UNITS:
        if abs(count) < 999.5 or unit == _UNITS[-1]:
            break
        count /= 1024
    if unit == "B" or count >= 99.5 or count == int(count):
        return f"{count:,.0f} {unit}"
    return f"{count:.1f} {unit}"


def bytes_of(used: float, total: float) -> str:
    """
    Format a number of bytes as a part of another one.

    >>> bytes_of(23.1 * 2**30, 23.5 * 2**30), bytes_of(2**20, 2**35)
    ('23.1 of 23.5 GB', '1 MB of 32 GB')
    """
    (number, unit), whole = byte_count(used).split(" "), byte_count(total)
    return f"{number} {'' if whole.endswith(f' {unit}') else f'{unit} '}of {whole}"


def seconds(count: float) -> str:
    """
    Format a duration.

    >>> seconds(0.234), seconds(41), seconds(842), seconds(7384)
    ('0.2 s', '41 s', '14 min 2 s', '2 h 3 min')
    """
    if count < 9.95:
        return f"{count:.1f} s"
    whole = round(count)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    hours, minutes = divmod(round(count / 60), 60)
    return f"{hours} h {minutes} min"


def age(count: float) -> str:
    """
    Format an age.

    >>> age(20), age(600), age(3 * 3600), age(50 * 3600)
    ('1 min', '10 min', '3 h', '2 days')
    """
    if count < 5400:
        return f"{max(round(count / 60), 1)} min"
    hours = round(count / 3600)
    return f"{hours} h" if hours < 48 else f"{hours // 24} days"


def money(dollars: float | None) -> str:
    """
    Format a price or a cost in USD; None, which means unknown, is "$?".

    >>> money(None), money(0), money(0.234), money(0.0004), money(1234.5)
    ('$?', '$0', '$0.23', '$0.0004', '$1,234.50')
    >>> money(0.00001)
    '<$0.0001'
    """
    if dollars is None:
        return "$?"
    if dollars == 0:
        return "$0"
    if 0 < dollars < 0.0001:
        return "<$0.0001"
    if dollars < 0.01:
        return f"${dollars:.4f}"
    return f"${dollars:,.2f}"


def rate(dollars: float | None) -> str:
    """
    Format an hourly price.

    >>> rate(None), rate(0), rate(3.2256)
    ('$?/h', 'no charge', '$3.23/h')
    """
    return "no charge" if dollars == 0 else f"{money(dollars)}/h"


def count(number: int, singular: str, plural: str = "") -> str:
    """
    Format a number with its noun.

    >>> count(1, "file"), count(1204, "file"), count(2, "box", "boxes")
    ('1 file', '1,204 files', '2 boxes')
    """
    noun = singular if number == 1 else plural or f"{singular}s"
    return f"{number:,} {noun}"


def clock(moment: float, now: float) -> str:
    """Format a time (epoch seconds) as local time, with the day if it is not today."""
    then, today = time.localtime(moment), time.localtime(now)
    if then[:3] == today[:3]:
        return time.strftime("%H:%M", then)
    return time.strftime("%d %b %H:%M", then).lstrip("0")


def when(moment: float, now: float) -> str:
    """
    Format a time that lies ahead (epoch seconds), such as "in 8 h (17:45)".

    The day is left out if it is clear. A time that has passed is "at 17:45".
    """
    if moment <= now:
        return f"at {clock(moment, now)}"
    far = moment - now > 20 * 3600
    at = clock(moment, now) if far else time.strftime("%H:%M", time.localtime(moment))
    return f"in {age(moment - now)} ({at})"


def off(deadline: float, now: float) -> str:
    """
    Say when a box powers itself off, such as "powers itself off in 8 h (17:45)".

    Args:
        deadline: In epoch seconds. 0 means a box that is a folder on a cluster.
    """
    if not deadline:
        return "stays until inv teardown"
    return f"powers itself off {when(deadline, now)}"


def path(name: bytes | str) -> str:
    """
    Return a path as text; control characters are escaped, a long path is shortened.

    >>> path("a b"), path(b"new\\nline")
    ('a b', "'new\\\\nline'")
    """
    text = name if isinstance(name, str) else name.decode("utf-8", "surrogateescape")
    if not text.isprintable():
        text = ascii(text)
    if len(text) > LONGEST_PATH:
        text = f"{text[: LONGEST_PATH // 2]}…{text[-LONGEST_PATH // 2 :]}"
    return text


def first_names(names: list[str], limit: int = 3) -> str:
    """
    Format a list of names; those after the first *limit* are only counted.

    >>> first_names(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    shown = ", ".join(names[:limit])
    rest = len(names) - limit
    return f"{shown} and {rest:,} more" if rest > 0 else shown


def place_of(error: BaseException, folder: Path) -> str:
    """
    Return the line of a file in *folder* where an error arose, such as "tasks.py:3".

    The result is "" if the error arose elsewhere.
    """
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    places = [(frame.filename, frame.lineno) for frame in frames]
    if isinstance(error, SyntaxError) and error.filename:
        places.append((error.filename, error.lineno))
    for name, line in reversed(places):
        file = Path(name)
        if folder in file.parents and "site-packages" not in file.parts:
            return path(f"{file.relative_to(folder)}:{line}")
    return ""


def whole_number(text: str) -> int | None:
    """
    Return the number in a text of digits, None for another text.

    It is at most 10**18, because Python converts no endless number.

    >>> whole_number("007"), whole_number("9" * 5000) == 10**18, whole_number("-1")
    (7, True, None)
    """
    if not text.isdecimal():
        return None
    digits = text.lstrip("0") or "0"
    return int(digits) if len(digits) <= 18 else 10**18


def shell_line(words: Sequence[str]) -> str:
    """
    Return the line of shell that runs a program with its arguments.

    >>> shell_line(["A=1", "b c"])
    "'A=1' 'b c'"
    """
    line = shlex.join(words)
    # Without quotes, a shell would set a variable instead.
    if words and re.match(r"[A-Za-z_]\w*=", line):
        line = f"'{words[0]}'{line[len(words[0]) :]}"
    return line
