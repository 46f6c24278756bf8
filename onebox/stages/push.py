"""Have code and data on the box, exactly as they are here."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.boxes import bring_up
from onebox.project_files import left_out, project
from onebox.stages import previous_outputs
from onebox.transfer import push_files

if TYPE_CHECKING:
    from onebox.agent.files.hash_index import Index
    from onebox.agent.files.manifest import Entry
    from onebox.context import BoxContext


def chosen(context: BoxContext, known: Index | None = None) -> list[Entry]:
    """Return the files that belong on the box; warn once of what cannot go."""
    return project(context, known).entries


def stays_here(context: BoxContext) -> str:
    """Return a phrase for what is here and is not pushed, being output, or ""."""
    return left_out(project(context))


def digest(context: BoxContext) -> str:
    """Return one hash over the code and data that are here."""
    return push_files.digest(context.root, partial(chosen, context), _index(context))


def reason(context: BoxContext) -> str | None:
    """Say what on the box differs from here, or None."""
    box = context.box
    if box is None or box.state != "running":
        return "the box is empty" if box is None else f"{box.id} is {box.state}"
    files = partial(chosen, context)
    why: str | None = context.resuming(
        lambda channel: push_files.difference(
            channel, context.root, files, _index(context)
        )
    )
    return why


def perform(context: BoxContext) -> None:
    """Bring code and data to the box; the box confirms by digest."""
    context.lock()
    # The files that a job works with are not changed under it, nor those that it
    # has changed before they are here.
    previous_outputs.fetch_outputs(context, bring_up.ready(context))
    with context.timed("push"), context.screen.stage("push") as line:
        line.doing("looking at what is here")
        stays = ""

        def files(known: Index) -> list[Entry]:
            nonlocal stays
            found = project(context, known)
            stays = left_out(found)
            return found.entries

        done = context.resuming(
            lambda channel: push_files.push(
                channel, context.root, files, _index(context), line.progress
            )
        )
        context.pushed = done.digest
        sent = formatting.count(done.files, "file")
        amount = f"{sent}, {formatting.byte_count(done.bytes)}"
        if not done.sent_files and not done.deleted:
            line.end("up to date", "; ".join(filter(None, [amount, stays])))
            return
        changes = []
        if done.sent_files < done.files:
            changes.append(f"{done.sent_files:,} changed")
        if done.deleted:
            changes.append(f"{done.deleted:,} deleted")
        detail = ", ".join([amount, *changes])
        line.end("", "; ".join(filter(None, [detail, stays])))


def _index(context: BoxContext) -> Path:
    return context.store.directory / "index"
