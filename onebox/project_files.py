"""Select what of the project goes to a box, and print a warning for what cannot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.errors import UsageError
from onebox.jobs import output_folders
from onebox.jobs.output_paths import roots
from onebox.store import private_paths
from onebox.transfer.select import Selection, select

if TYPE_CHECKING:
    from onebox.agent.files.hash_index import Index
    from onebox.context import BoxContext


def selected(
    context: BoxContext,
    code: Sequence[str],
    data: Sequence[str],
    outputs: Sequence[str] = (),
    known: Index | None = None,
) -> Selection:
    """
    Return the selection; each of its warnings is printed once.

    Raises:
        UsageError: The project is no folder to push from: a home folder, or one
            that holds onebox's own key.
    """
    why = private_paths.no_project(context.root, context.environ)
    if why is not None:
        raise UsageError(
            f"{why}: nothing of it is pushed",
            next="put onebox.toml and tasks.py into a folder of the project's own",
        )
    found = select(context.root, code, data, outputs, known)
    for warning in found.warnings:
        if warning not in context.warned:
            context.warned.add(warning)
            context.screen.warn(warning)
    return found


def project(context: BoxContext, known: Index | None = None) -> Selection:
    """Return what `[push]` selects of the project; see `selected`."""
    push = context.settings.push
    outputs = [*roots(context), *output_folders.noted(context)]
    return selected(context, push.code, push.data, outputs, known)


def left_out(selection: Selection) -> str:
    """Return a phrase for the outputs that are here and are not pushed, or ""."""
    if not selection.left_out:
        return ""
    listed = [
        f"{formatting.path(one.path)} ({formatting.count(one.files, 'file')})"
        for one in selection.left_out
    ]
    return f"outputs not pushed: {formatting.some(listed)}"
