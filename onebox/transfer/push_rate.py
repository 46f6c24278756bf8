"""Remember how fast the last push of a project was, to estimate the next one."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from onebox import formatting
from onebox.store.atomic_files import private_dir, write_atomically

# A push of at least this many bytes is described in detail before it begins.
BIG = 50 << 20
# A smaller push is not measured: most of its time is not the transfer.
_LEAST = 4 << 20
# The rate for estimates as long as none is known (bytes a second). The estimate names
# it, because it is only an example.
_EXAMPLE = 10 << 20
# At most this many folders are named.
FOLDERS = 5


def remember(file: Path, provider: str, sent: int, seconds: float) -> None:
    """Store the rate of a push that has sent files of *sent* bytes."""
    if sent < _LEAST or seconds <= 0:
        return
    # The rate is only for estimates: a full disk must not fail the push.
    with suppress(OSError):
        private_dir(file.parent)
        rates = {**_read(file), provider: sent / seconds}
        write_atomically(file, json.dumps(rates).encode())


def last(file: Path, provider: str) -> float | None:
    """Return the rate of the last push in bytes a second, None if it is not known."""
    return _read(file).get(provider)


def describe(size: int, folders: Sequence[tuple[str, int]], rate: float | None) -> str:
    """
    Return a phrase about a big push: its largest folders and the time it takes.

    The phrase is "" if *size* is not big.
    """
    if size < BIG:
        return ""
    names = ", ".join(
        f"{name} {formatting.byte_count(bytes_)}"
        for name, bytes_ in folders[:FOLDERS]
        # Small folders are not named.
        if bytes_ * 100 >= size
    )
    used = rate or _EXAMPLE
    time = formatting.seconds(size / used)
    speed = f"{formatting.byte_count(used)}/s"
    guess = f"about {time} at a guess of {speed}"
    about = f"about {time} at the {speed} of the last push"
    return f"{names}; {about if rate else guess}"


def _read(file: Path) -> dict[str, float]:
    with suppress(OSError, ValueError, RecursionError):
        rates = json.loads(file.read_bytes())
        if isinstance(rates, dict):
            return {
                str(name): float(rate)
                for name, rate in rates.items()
                if isinstance(rate, (int, float)) and 1 <= rate < math.inf
            }
    return {}
