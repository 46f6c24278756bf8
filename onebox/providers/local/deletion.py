"""
Remove a box: its processes, then its directory.

The directory gets the prefix `.gone-` before its files are removed. From then on the
box does not exist any more, even if the removal is interrupted.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from onebox.errors import Unclear
from onebox.providers.values import Leftover

from . import box_processes, directories, power
from .instances import DELETED, NEW
from .layout import Layout
from .locks import locked


def remove(layout: Layout) -> None:
    """
    Remove a box, even if its creation or deletion was interrupted.

    Raises Unclear if another command is creating or using the box.
    """
    box = layout.path.name
    deleted = layout.path.with_name(f"{DELETED}{box}")
    if os.path.lexists(layout.path):
        power.stop(layout, box, "deleted")
        put_away(layout.path, deleted)
    box_processes.end(
        lambda: box_processes.marked(box), grace=2 * box_processes.GRACE_SECONDS
    )
    directories.remove(deleted)
    if not clear_unfinished(Layout(layout.path.with_name(f"{NEW}{box}"))):
        raise Unclear(f"another onebox command is making box {box}")


def leftovers(layout: Layout) -> Sequence[Leftover]:
    """Return the directories and processes of a box that still exist."""
    box = layout.path.name
    paths = [layout.path.with_name(f"{prefix}{box}") for prefix in ("", NEW, DELETED)]
    found = [
        Leftover("directory", str(path), 0.0) for path in paths if os.path.lexists(path)
    ]
    pids = sorted(box_processes.marked(box))
    return [*found, *(Leftover("process", str(pid), 0.0) for pid in pids)]


def clear_unfinished(unfinished: Layout) -> bool:
    """Remove an unfinished box; return False if a command is still creating it."""
    path = unfinished.path
    if not path.is_dir():
        return True
    deleted = path.with_name(path.name.replace(NEW, DELETED, 1))
    with locked(unfinished.lock) as lock:
        if lock is None:
            return False
        # The directory is moved together with its lock file. If another command creates
        # the box at this moment, that command starts with an empty directory.
        put_away(path, deleted)
    directories.remove(deleted)
    return True


def put_away(path: Path, deleted: Path) -> None:
    """Rename *path* to *deleted*; it is no error if *path* does not exist."""
    directories.remove(deleted)
    with contextlib.suppress(FileNotFoundError):
        path.rename(deleted)
