"""Faults that a local box can be told to have: the table [local.rehearse]."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ...errors import ConfigError

# For the README and onebox.toml.example: every option and what it does. Seconds
# count from the moment the box is up.
OPTIONS: Mapping[str, str] = {
    "boot_delay": "the box takes this many seconds until ssh answers",
    "notice_after": "the cloud announces then that it takes the box back",
    "notice_seconds": "and takes it this many seconds later (default 30)",
    "drop_after": "every connection breaks once, then",
    "drop_every": "every connection breaks again and again, this often",
    "stall_after": "no byte moves any more, from then on ...",
    "stall_seconds": "... for this many seconds (default 30)",
    "die_after": "everything in the box is gone at once, as in a power cut",
    "host_key_after": "somebody else answers: another host key, from then on",
    "disk": "the home directory holds this much (as in '100 MB') and is lost at stop",
}
DEFAULTS: Mapping[str, float] = {"notice_seconds": 30.0, "stall_seconds": 30.0}

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_UNITS.update({"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40})


def faults(table: object) -> dict[str, float]:
    """
    Return the faults of the table as numbers: seconds, and bytes for *disk*.

    Raises:
        ConfigError: An option or a value that cannot be used.
    """
    if not isinstance(table, Mapping):
        raise ConfigError("[local.rehearse] must be a table")
    found: dict[str, float] = {}
    for name, value in table.items():
        if name not in OPTIONS:
            known = ", ".join(OPTIONS)
            raise ConfigError(f"[local.rehearse] has no option {name!r}, only: {known}")
        found[name] = _bytes(value) if name == "disk" else _seconds(name, value)
    return found


def notes(asked: Mapping[str, float]) -> tuple[str, ...]:
    """Say what the box is told to do, so that nobody takes it for a real fault."""
    set_here = [
        f"{name} = {value:,.0f} bytes" if name == "disk" else f"{name} = {value:g}"
        for name, value in asked.items()
        if name != "notice_seconds" or "notice_after" in asked
        if name != "stall_seconds" or "stall_after" in asked
    ]
    told = [f"rehearsal: {', '.join(set_here)}"] if set_here else []
    if "disk" in asked:
        told.append("its disk is lost at stop and cannot be saved as an image")
    return tuple(told)


def _seconds(name: str, value: object) -> float:
    try:
        # Whatever is no number is told apart by the errors below.
        seconds = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        seconds = -1.0
    # "not >=" also refuses a nan.
    if not 0 <= seconds < float("inf") or (name == "drop_every" and seconds == 0):
        raise ConfigError(f"[local.rehearse] {name} must be seconds, not {value!r}")
    return seconds


def _bytes(value: object) -> float:
    match = re.fullmatch(r"\s*([0-9.]+)\s*([A-Za-z]*)\s*", str(value))
    try:
        number = float(match[1]) * _UNITS[match[2].lower()] if match else 0.0
    except (KeyError, ValueError):
        number = 0.0
    if number < 1:
        raise ConfigError(f"[local.rehearse] disk must be as '100 MB', not {value!r}")
    return float(int(number))
