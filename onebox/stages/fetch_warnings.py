"""Warn about files that a fetch has left on the box, and files here that it renamed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onebox import formatting
from onebox.stages import held_outputs

if TYPE_CHECKING:
    from onebox.context import BoxContext
    from onebox.transfer.fetch_outputs import Fetched


def warn_of_files_left(context: BoxContext, fetched: Fetched, caller: str) -> None:
    """Warn about files of the job that the fetch has left on the box."""
    left = fetched.changes_outside
    if left is not None:
        removed = caller == "teardown" or context.invocation.removes_box(
            context.store.record.temporary
        )
        context.screen.warn(held_outputs.describe_left(context, left, removed=removed))
    if fetched.dangling:
        names = map(formatting.path, fetched.dangling)
        context.screen.warn(
            f"links to nothing, left out: {formatting.first_names([*names])}"
        )
    if fetched.skipped:
        names = map(formatting.path, fetched.skipped)
        context.screen.warn(
            f"not fetched, because onebox fetches no pipes, sockets, devices or paths "
            f"of its own: {formatting.first_names([*names])}"
        )


def warn_of_renamed_files(context: BoxContext, fetched: Fetched) -> None:
    """Warn about local files that were renamed to make room for outputs."""
    of_other_boxes: dict[str, list[str]] = {}
    for path, new_path in fetched.kept_aside:
        other_box = fetched.owners_of_kept.get(path)
        if other_box is None:
            context.screen.warn(
                f"{formatting.path(path)} had been changed here: yours is now "
                f"{formatting.path(new_path)}"
            )
        else:
            renamed = f"{formatting.path(path)} is now {formatting.path(new_path)}"
            of_other_boxes.setdefault(other_box, []).append(renamed)
    for other_box, renames in of_other_boxes.items():
        context.screen.warn(
            f"outputs of {context.title_of(other_box)} were here and are "
            f"kept: {formatting.first_names(renames)} ([fetch] outputs_to keeps them "
            "apart)"
        )
