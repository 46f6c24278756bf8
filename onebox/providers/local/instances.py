"""Read a box from its files and its lock, and check its owner."""

from __future__ import annotations

import os
from typing import Any

from onebox.errors import Gone, NotAllowed
from onebox.providers.kernel.metadata import check_owner as check_identity
from onebox.providers.kernel.metadata import identity
from onebox.providers.values import Box, BoxState, Offer, Tags

from ...agent.box import is_locked
from .layout import Layout, MachineConfig, read_json

# A box's directory has the prefix NEW while the box is being created, and DELETED while
# it is being deleted.
NEW, DELETED = ".new-", ".gone-"
# This folder in the box's home holds the project.
WORK = "work"


def box(layout: Layout) -> Box:
    """
    Return the box of *layout* in its present state.

    Raises:
        Gone: The box does not exist.
    """
    record = read_json(layout.record)
    if record is None:
        raise Gone(f"there is no box {layout.path.name} here")
    alive = is_locked(str(layout.lock))
    # The state is read after the lock is tested. A supervisor writes its final state
    # before it ends, so the state of a box that is not locked is final.
    state = read_json(layout.state) or {}
    offer: dict[str, Any] = record["offer"]
    port = int(state.get("port", 0))
    notes = (*state.get("notes", ()), *record["notes"])
    return Box(
        id=layout.path.name,
        tags=Tags.parse(record["tags"]),
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
    """Return whether the box has come up since the supervisor was last started."""
    return "port" in (read_json(layout.state) or {})


def loses_disk(layout: Layout) -> bool:
    """Return whether the box's home is a rehearsed disk, which is lost at a stop."""
    boot = MachineConfig.load(layout.boot)
    return boot is not None and "disk" in boot.faults


def tags(layout: Layout) -> Tags | None:
    """Return the box's tags, None if the directory is not the directory of a box."""
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
    return Tags.parse(record["tags"])


def check_owner(layout: Layout, expected: Tags) -> None:
    """
    Check that a directory belongs to the box that the tags *expected* describe.

    Raises:
        Gone: The directory does not exist.

        NotAllowed: The directory belongs to another owner, or is not a box.
    """
    name = layout.path.name
    present = tags(layout)
    if present is None:
        # The directory is tested after the tags were read, because another command may
        # have removed the box just now.
        if not os.path.lexists(layout.path):
            raise Gone(f"there is no box {name} here")
        raise NotAllowed(f"{layout.path} is not a directory of box {name}")
    check_same(f"box {name}", present, expected)


def check_same(what: str, present: Tags, expected: Tags) -> None:
    """Raise NotAllowed unless both tags have the same owner, project, name and kind."""
    check_identity(what, identity(present), identity(expected))


def _state(reported: object) -> BoxState:
    """Return the state of a box whose lock is held."""
    if reported in ("running", "stopping"):
        return reported
    # The lock is still held although the supervisor has reported its final state. The
    # supervisor only has to end itself now.
    return "stopping" if reported in ("stopped", "failed") else "starting"
