"""The headers Range, If-Match and their like, as all the servers read them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import formatdate, parsedate_to_datetime
from typing import Literal

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


def http_date(seconds: float) -> str:
    """Return a time as HTTP writes it."""
    return formatdate(seconds, usegmt=True)


def parse_range(text: str, size: int) -> tuple[int, int] | Literal["wrong"] | None:
    """
    Return first byte and length of a range.

    None is a header that is ignored: an unknown unit, several ranges, or the end before
    the start. "wrong" is a range that the object does not have.
    """
    match = _RANGE.fullmatch(text.strip())
    if not match or not any(match.groups()):
        return None
    first, last = match.groups()
    if not first:
        count = min(int(last), size)
        return (size - count, count) if count else "wrong"
    if last and int(last) < int(first):
        return None
    if int(first) >= size:
        return "wrong"
    end = min(int(last) + 1, size) if last else size
    return int(first), end - int(first)


def condition(
    headers: Mapping[str, str], etag: str, modified: float, weak: bool = False
) -> tuple[Literal[304, 412], str] | None:
    """
    Return the status and the header of the condition that does not hold, or None.

    Args:
        headers: The request's, in lower case.

        etag: The ETag without quotes.

        weak: Whether it is weak, so that If-Match never matches.
    """
    if "if-match" in headers:
        if weak and headers["if-match"] != "*":
            return 412, "If-Match"
        if not _matches(headers["if-match"], etag):
            return 412, "If-Match"
    elif "if-unmodified-since" in headers:
        since = _time(headers["if-unmodified-since"])
        if since is not None and int(modified) > since:
            return 412, "If-Unmodified-Since"
    if "if-none-match" in headers:
        if _matches(headers["if-none-match"], etag):
            return 304, "If-None-Match"
    elif "if-modified-since" in headers:
        since = _time(headers["if-modified-since"])
        if since is not None and int(modified) <= since:
            return 304, "If-Modified-Since"
    return None


def _matches(header: str, etag: str) -> bool:
    given = [one.strip().removeprefix("W/").strip('"') for one in header.split(",")]
    return "*" in given or etag in given


def _time(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError):
        return None
