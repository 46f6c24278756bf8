"""
Parse amounts of bytes and durations in the units that people write.

GB and GiB both mean 1024^3 bytes, as in the clouds' tables of machine types ("16 vCPU,
64 GB"). KB, MB and TB are powers of 1024 too.
"""

from __future__ import annotations

import re

GB = 1 << 30

_NUMBER = r"([0-9]{1,12}(?:\.[0-9]{1,6})?)"
_BYTE_AMOUNT = re.compile(_NUMBER + r"\s*(?:([KMGT])i?B?)?", re.IGNORECASE)
_DURATION = re.compile(_NUMBER + r"\s*([a-z]+)?", re.IGNORECASE)

_BYTES = {"K": 1 << 10, "M": 1 << 20, "G": GB, "T": 1 << 40}
_SECONDS = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


def parse_bytes(text: str) -> int:
    """
    Return the number of bytes in an amount such as "256 GB" or "1.5 TB".

    A number without a unit is in GB.

    Raises:
        ValueError: The text is not an amount of bytes.
    """
    match = _BYTE_AMOUNT.fullmatch(text.strip())
    if match is None:
        raise ValueError("not an amount of bytes")
    number, unit = match.groups()
    return round(float(number) * _BYTES[(unit or "G").upper()])


def parse_duration(text: str) -> float:
    """
    Return the number of seconds in a duration such as "90 s", "5 min" or "1.5 h".

    A number without a unit is in seconds.

    Raises:
        ValueError: The text is not a duration.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError("not a duration")
    number, unit = match.groups()
    factor = _SECONDS.get((unit or "s").lower())
    if factor is None:
        raise ValueError("not a unit of time")
    return float(number) * factor


def format_bytes(count: int) -> str:
    """Format a number of bytes as `parse_bytes` reads it, in the largest exact unit."""
    for unit in "TGMK":
        if count and count % _BYTES[unit] == 0:
            return f"{count // _BYTES[unit]} {unit}B"
    return f"{count / GB:.6g} GB"
