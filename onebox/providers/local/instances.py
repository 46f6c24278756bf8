"""Read a box from its files and its lock, and check its owner before any change."""

from __future__ import annotations

import os
from typing import Any

from onebox.errors import Gone, NotAllowed
from onebox.providers.kernel.metadata import check_owner as check_identity
from onebox.providers.kernel.metadata import identity
from onebox.providers.values import Box, BoxState, Offer, Tags

from ...agent.box import is_locked
from .layout import BootConfig, Layout, read_json

# Prefixes of a directory that is being created, or deleted.
NEW, DELETED = ".new-", ".gone-"
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
    boot = BootConfig.load(layout.boot)
    return boot is not None and "disk" in boot.faults


def tags(layout: Layout) -> Tags | None:
    """Return the box's tags, None if the directory is not one of a box."""
    if layout.path.is_symlink():
        return None
    name = layout.path.name
    for prefix in (NEW, DELETED):
        name = name[len(prefix) :] if name.startswith(prefix) else name
    try:
        marker = layout.marker.read_text("ascii")
    except (OSError, UnicodeDecodeError):
        return None
    record = read_json(layout.record)
    if record is None or marker != name:
        return None
    return Tags(**record["tags"])


def check_owner(layout: Layout, expected: Tags) -> None:
    """
    Check that a directory is the box with these tags.

    Raises:
        Gone: The directory does not exist.

        NotAllowed: It belongs to another owner, or is not a box.
    """
    name = layout.path.name
    present = tags(layout)
    if present is None:
        # Checked afterwards: another command may have removed the box just now.
        if not os.path.lexists(layout.path):
            raise Gone(f"there is no box {name} here")
        raise NotAllowed(f"{layout.path} is not a directory of box {name}")
    check_same(f"box {name}", present, expected)


def check_same(what: str, present: Tags, expected: Tags) -> None:
    """Raise NotAllowed unless both have the same owner, project, name and kind."""
    check_identity(what, identity(present), identity(expected))


def _state(reported: object) -> BoxState:
    """Return the state of a box whose lock is held."""
    if reported in ("running", "stopping"):
        return reported
    # After its final report the supervisor only has to end itself.
    return "stopping" if reported in ("stopped", "failed") else "starting"
