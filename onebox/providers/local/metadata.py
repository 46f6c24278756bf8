"""The tags of a box's directory, and the ownership check before any change."""

from __future__ import annotations

import os

from onebox.errors import Gone, NotAllowed
from onebox.providers.kernel.metadata import check_owner as check_identity
from onebox.providers.kernel.metadata import identity
from onebox.providers.values import Tags

from .layout import Layout, read_json

# Prefixes of a directory that is being created, or deleted.
NEW, DELETED = ".new-", ".gone-"


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
