"""The faults that a box injects, from the table [local.rehearse]."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from onebox.settings.units import format_bytes

from .settings import Rehearse


def faults(settings: Rehearse) -> dict[str, float]:
    """Return the faults that are set: seconds, and bytes for *disk*."""
    return {
        name: value for name, value in asdict(settings).items() if value is not None
    }


def notes(faults: Mapping[str, float]) -> tuple[str, ...]:
    """Return notes that name the faults, so that users do not take them for real."""
    named = [
        f"{name} = {format_bytes(int(value)) if name == 'disk' else f'{value:g}'}"
        for name, value in faults.items()
        if name != "notice_seconds" or "notice_after" in faults
        if name != "stall_seconds" or "stall_after" in faults
    ]
    found = [f"rehearsal: {', '.join(named)}"] if named else []
    if "disk" in faults:
        found.append("its disk is lost at stop and cannot be saved as an image")
    return tuple(found)
