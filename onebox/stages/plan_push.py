"""Find which files a push would send, for a plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onebox import formatting, project_files
from onebox.agent.file_names import show
from onebox.stages import data, push
from onebox.stages.plan_values import PlannedPush
from onebox.transfer import push_rate
from onebox.transfer.difference import Difference, folder_sizes

if TYPE_CHECKING:
    from onebox.context import BoxContext
    from onebox.providers.values import Box


def find(
    context: BoxContext, box: Box | None, *, compare: bool
) -> tuple[PlannedPush, str]:
    """
    Return what a push would do, and a phrase about the files that are not pushed.

    Args:
        box: The box, None if there is none.

        compare: Whether the box runs, so that its files are compared.

    Raises:
        OneboxError: The files cannot be selected or compared.
    """
    selection = project_files.select_project(context)
    data.check_pushed(context, selection.paths)
    found = Difference.of_empty_box(selection.entries)
    if compare:
        found = push.difference(context)
    files = found.files
    changed = [entry for entry in files if entry.path in found.changed]
    names = [show(entry.path) for entry in changed] or [
        show(path) for path in sorted(found.changed)
    ]
    return (
        PlannedPush(
            files=len(files),
            bytes=sum(entry.size for entry in files),
            changed=tuple(names) if compare or box is None else None,
            deleted=tuple(show(path) for path in found.gone),
            sent_bytes=sum(entry.size for entry in found.to_send),
            folders=dict(folder_sizes(found.to_send)),
            bytes_per_second=push.last_rate(context),
            downloads=data.plan(context, compare=compare, has_box=box is not None),
        ),
        project_files.describe_left_out(selection),
    )


def amount(found: PlannedPush) -> str:
    """Return the number of files and their size as text."""
    files = formatting.count(found.files, "file")
    return f"{files}, {formatting.byte_count(found.bytes)}"


def describe(found: PlannedPush, box: Box | None) -> str:
    """Return a phrase about what is pushed and why."""
    parts = [amount(found)]
    if found.changed is None and box is not None:
        parts.append(f"{box.id} is {box.state}")
    elif box is None:
        parts.append("the box is empty")
    elif found.changed:
        verb = "differs" if len(found.changed) == 1 else "differ"
        names = formatting.first_names(list(found.changed))
        parts.append(f"{len(found.changed):,} {verb}: {names}")
    if found.deleted:
        names = formatting.first_names(list(found.deleted))
        parts.append(f"{len(found.deleted):,} deleted: {names}")
    return "; ".join(parts)


def describe_size(found: PlannedPush) -> str:
    """Return the folders and the time of a big push as text, "" for a small push."""
    size = push_rate.describe(
        found.sent_bytes, list(found.folders.items()), found.bytes_per_second
    )
    return size and f"sends {formatting.byte_count(found.sent_bytes)}: {size}"
