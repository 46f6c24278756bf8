"""The faults that a local box is told to have: the table [local.rehearse]."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from onebox.settings.units import format_bytes

from .settings import Rehearse


def faults(asked: Rehearse) -> dict[str, float]:
    """Return what a box is to have: seconds, and bytes for *disk*."""
    return {name: value for name, value in asdict(asked).items() if value is not None}


def notes(planned: Mapping[str, float]) -> tuple[str, ...]:
    """Say what the box is told to do, so that nobody takes it for a real fault."""
    set_here = [
        f"{name} = {format_bytes(int(value)) if name == 'disk' else f'{value:g}'}"
        for name, value in planned.items()
        if name != "notice_seconds" or "notice_after" in planned
        if name != "stall_seconds" or "stall_after" in planned
    ]
    told = [f"rehearsal: {', '.join(set_here)}"] if set_here else []
    if "disk" in planned:
        told.append("its disk is lost at stop and cannot be saved as an image")
    return tuple(told)
