"""Copy code and data to the box, and delete on the box what was deleted locally."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from onebox import formatting, project_files
from onebox.boxes import bring_up
from onebox.project_files import select_project
from onebox.stages import environment, fetch
from onebox.transfer import push_files

if TYPE_CHECKING:
    from onebox.agent.files.hash_index import Index
    from onebox.agent.files.manifest import Entry
    from onebox.context import BoxContext


def describe_left_out(context: BoxContext) -> str:
    """Return a phrase that names the local outputs that are not pushed, or ""."""
    return project_files.describe_left_out(select_project(context))


def digest(context: BoxContext) -> str:
    """Return one hash over the local code and data."""
    entries = partial(_entries, context)
    return push_files.digest(context.root, entries, _index(context))


def reason(context: BoxContext) -> str | None:
    """Return why a push has something to do; None if the box has the local files."""
    box = context.find_box()
    if box is None or box.state != "running":
        return "the box is empty" if box is None else f"{box.id} is {box.state}"
    entries = partial(_entries, context)
    difference: str | None = context.call_resuming(
        lambda channel: push_files.difference(
            channel, context.root, entries, _index(context)
        )
    )
    return difference


def perform(context: BoxContext) -> None:
    """
    Push code and data, and install on the box what they change in its environment.

    A digest from the box confirms that code and data have arrived.
    """
    context.lock()
    # A push must not change the files of a running job, nor overwrite outputs that
    # are not fetched. So a running job is an error, and the last job's outputs are
    # fetched first.
    box = bring_up.wait_until_reachable(context)
    fetch.fetch_previous(context, box)
    update = environment.find_update(context, box)
    _push(context)
    if update is not None:
        environment.update(context, update)


def _push(context: BoxContext) -> None:
    with context.chain.timed("push"), context.screen.stage("push") as stage_line:
        stage_line.doing("reading the project's files")
        left_out = ""

        def entries(index: Index) -> list[Entry]:
            nonlocal left_out
            selection = select_project(context, index)
            left_out = project_files.describe_left_out(selection)
            return selection.entries

        pushed = context.call_resuming(
            lambda channel: push_files.push(
                channel, context.root, entries, _index(context), stage_line.progress
            )
        )
        context.chain.pushed_digest = pushed.digest
        count = formatting.count(pushed.files, "file")
        amount = f"{count}, {formatting.byte_count(pushed.bytes)}"
        if not pushed.sent_files and not pushed.deleted:
            stage_line.end("up to date", "; ".join(filter(None, [amount, left_out])))
            return
        changes = []
        if pushed.sent_files < pushed.files:
            changes.append(f"{pushed.sent_files:,} changed")
        if pushed.deleted:
            changes.append(f"{pushed.deleted:,} deleted")
        detail = ", ".join([amount, *changes])
        stage_line.end("", "; ".join(filter(None, [detail, left_out])))


def _entries(context: BoxContext, index: Index) -> list[Entry]:
    return select_project(context, index).entries


def _index(context: BoxContext) -> Path:
    """Return the file that caches the hashes of local files."""
    return context.store.directory / "index"
