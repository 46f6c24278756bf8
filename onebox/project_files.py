"""Select the project files that go to a box; warn about files that cannot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.errors import UsageError
from onebox.jobs import output_paths
from onebox.jobs.output_paths import roots
from onebox.store import paths
from onebox.transfer.select import Selection, select

if TYPE_CHECKING:
    from onebox.agent.files.hash_index import Index
    from onebox.context import BoxContext


def select_files(
    context: BoxContext,
    code: Sequence[str],
    data: Sequence[str],
    outputs: Sequence[str] = (),
    index: Index | None = None,
) -> Selection:
    """
    Select files by patterns of code and data; print each warning once per line.

    Raises:
        UsageError: The project is not a folder to push from: a home folder, or a
            folder that holds onebox's own key.
    """
    reason = paths.no_project(context.root, context.environ)
    if reason is not None:
        raise UsageError(
            f"{reason}: nothing in it is pushed",
            next="move onebox.toml and tasks.py to a folder of their own",
        )
    selection = select(context.root, code, data, outputs, index)
    for warning in selection.warnings:
        if warning not in context.chain.warned:
            context.chain.warned.add(warning)
            context.screen.warn(warning)
    return selection


def select_project(context: BoxContext, index: Index | None = None) -> Selection:
    """Select the files that `[push]` names; see `select_files`."""
    push = context.settings.push
    outputs = [*roots(context), *output_paths.noted_folders(context)]
    return select_files(context, push.code, push.data, outputs, index)


def describe_left_out(selection: Selection) -> str:
    """Return a phrase that names the local outputs that are not pushed, or ""."""
    if not selection.left_out:
        return ""
    names = [
        f"{formatting.path(folder.path)} ({formatting.count(folder.files, 'file')})"
        for folder in selection.left_out
    ]
    return f"outputs not pushed: {formatting.first_names(names)}"
