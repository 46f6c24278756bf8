"""
Read sizes and durations as people write them.

GB means 1024^3 bytes, as in every cloud's table of machine types ("16 vCPU,
64 GB"), and so does GiB; MB, TB and the others likewise.
"""

from __future__ import annotations

import re

_NUMBER = r"([0-9]{1,12}(?:\.[0-9]{1,6})?)"
_SIZE = re.compile(_NUMBER + r"\s*(?:([KMGT])i?B?)?", re.IGNORECASE)
_DURATION = re.compile(_NUMBER + r"\s*([a-z]+)?", re.IGNORECASE)

_BYTES = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SECONDS = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


def parse_bytes(text: str) -> int:
    """
    Return the bytes that a size such as "256 GB" or "1.5 TB" means.

    A number alone is in GB. Raises ValueError for anything else.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError("not a size")
    number, unit = match.groups()
    return round(float(number) * _BYTES[(unit or "G").upper()])


def parse_duration(text: str) -> float:
    """
    Return the seconds that a duration such as "90 s", "5 min" or "1.5 h" means.

    A number alone is in seconds. Raises ValueError for anything else.
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
    """Return a byte count as `parse_bytes` reads it, in the largest unit that fits."""
    for unit in "TGMK":
        if count and count % _BYTES[unit] == 0:
            return f"{count // _BYTES[unit]} {unit}B"
    return f"{count / _BYTES['G']:.6g} GB"
