"""Copy code and data to the box, and delete on the box what was deleted locally."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from onebox import formatting, project_data, project_files
from onebox.boxes import bring_up
from onebox.project_files import select_project
from onebox.stages import data, environment, fetch
from onebox.transfer import push_files, push_rate
from onebox.transfer.difference import Difference, folder_sizes

if TYPE_CHECKING:
    from onebox.agent.files.hash_index import Index
    from onebox.agent.files.manifest import Entry
    from onebox.context import BoxContext


def digest(context: BoxContext) -> str:
    """Return one hash over the local code and data."""
    entries = partial(_entries, context)
    local = push_files.digest(context.root, entries, _index(context))
    return data.add_digest(context, local)


def difference(context: BoxContext) -> Difference:
    """Return how the local files differ from those on the box, which runs."""
    entries = partial(_entries, context)
    found: Difference = context.call_resuming(
        lambda channel: push_files.difference(
            channel, context.root, entries, _index(context)
        )
    )
    return found


def describe_size(context: BoxContext, entries: Sequence[Entry]) -> str:
    """
    Return a phrase with the largest folders of a push and the time that it takes.

    The phrase is "" for a small push.

    Args:
        entries: The files whose contents are sent.
    """
    size = sum(entry.size for entry in entries)
    return push_rate.describe(size, folder_sizes(entries), last_rate(context))


def last_rate(context: BoxContext) -> float | None:
    """Return the rate of the project's last push in bytes a second, None if unknown."""
    return push_rate.last(_rate_file(context), context.provider_name)


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
    project_data.find(context)
    _push(context)
    data.download(context)
    digest = context.chain.pushed_digest
    context.chain.pushed_digest = data.add_digest(context, digest)
    if update is not None:
        environment.update(context, update)


def _push(context: BoxContext) -> None:
    with context.chain.timed("push"), context.screen.stage("push") as stage_line:
        stage_line.doing("reading the project's files")
        left_out = ""
        # The bytes to send, and the time at which sending began, once that is known.
        sending: list[tuple[int, float]] = []

        def entries(index: Index) -> list[Entry]:
            nonlocal left_out
            selection = select_project(context, index)
            left_out = project_files.describe_left_out(selection)
            data.check_pushed(context, selection.paths)
            return selection.entries

        def before_sending(entries: list[Entry]) -> None:
            if not sending:
                size = sum(entry.size for entry in entries)
                if size_text := describe_size(context, entries):
                    amount = formatting.byte_count(size)
                    context.screen.note(f"sending {amount}: {size_text}")
                sending.append((size, time.monotonic()))

        pushed = context.call_resuming(
            lambda channel: push_files.push(
                channel,
                context.root,
                entries,
                _index(context),
                stage_line.progress,
                before_sending=before_sending,
                downloads=bool(context.settings.push.sources),
            )
        )
        for size, began in sending:
            spent = time.monotonic() - began
            push_rate.remember(_rate_file(context), context.provider.name, size, spent)
        context.chain.pushed_digest = pushed.digest
        count = formatting.count(pushed.files, "file")
        amount = f"{count}, {formatting.byte_count(pushed.bytes)}"
        if not pushed.sent_files and not pushed.deleted:
            stage_line.end("up to date", "; ".join(filter(None, [amount, left_out])))
            return
        changes = []
        if not pushed.is_first:
            changes.append(f"{pushed.sent_files:,} changed")
        if pushed.deleted:
            changes.append(f"{pushed.deleted:,} deleted")
        detail = ", ".join([amount, *changes])
        stage_line.end("", "; ".join(filter(None, [detail, left_out])))


def _entries(context: BoxContext, index: Index) -> list[Entry]:
    return select_project(context, index).entries


def _rate_file(context: BoxContext) -> Path:
    """Return the file with the rates of the project's last pushes."""
    return context.store.directory.parent / "push_rates.json"


def _index(context: BoxContext) -> Path:
    """Return the file that caches the hashes of local files."""
    return context.store.directory / "index"
