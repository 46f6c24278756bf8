"""Read a box from its files and its lock."""

from __future__ import annotations

from typing import Any

from onebox.errors import Gone
from onebox.providers.values import Box, BoxState, Offer, Tags

from ...agent.box import is_locked
from . import boot_config
from .layout import Layout, read_json

# The folder in the box's home that holds the project.
WORK = "work"


def box(layout: Layout) -> Box:
    """Return the box as it is now. Raises `Gone`."""
    record = read_json(layout.record)
    if record is None:
        raise Gone(f"there is no box {layout.path.name} here")
    alive = is_locked(str(layout.lock))
    # Read after the lock: a supervisor writes its final state before it ends.
    state = read_json(layout.state) or {}
    offer: dict[str, Any] = record["offer"]
    port = int(state.get("port", 0))
    notes = (*state.get("notes", ()), *record["notes"])
    return Box(
        id=layout.path.name,
        tags=Tags(**record["tags"]),
        state=_state(state.get("state")) if alive else "stopped",
        offer=Offer.read(offer),
        image=record["image"],
        place="this machine",
        host="127.0.0.1" if port else "",
        port=port,
        user=record["user"],
        host_key=record["host_key"],
        created=record["created"],
        deadline=record["deadline"],
        agent=str(layout.agent / "agent.pyz"),
        work=WORK,
        why="" if alive else str(state.get("why") or ""),
        notes=notes,
    )


def has_run(layout: Layout) -> bool:
    """Return whether the box was ever up."""
    return "port" in (read_json(layout.state) or {})


def loses_disk(layout: Layout) -> bool:
    """Return whether the box's home is on a small disk in memory."""
    boot = boot_config.load(layout.boot)
    return boot is not None and "disk" in boot.faults


def _state(reported: object) -> BoxState:
    """Return the state of a box whose lock is held."""
    if reported in ("running", "stopping"):
        return reported
    # After its final report the supervisor only has to end itself.
    return "stopping" if reported in ("stopped", "failed") else "starting"
