"""Select the project files that are pushed, and list the outputs, which are not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.errors import UsageError
from onebox.settings.checks import job_output
from onebox.store import paths
from onebox.store.atomic_files import append_line, read_regular
from onebox.transfer.select import Selection, select

if TYPE_CHECKING:
    from onebox.agent.files.hash_index import Index
    from onebox.context import BoxContext

# Each box name has a folder with a file of this name. Each line of the file is the path
# of a folder for outputs, as JSON and relative to the project.
FOLDERS = "folders.jsonl"


def select_files(
    context: BoxContext,
    code: Sequence[str],
    data: Sequence[str],
    outputs: Sequence[str] = (),
    index: Index | None = None,
) -> Selection:
    """
    Select the files below the paths of code and data, and print new warnings.

    Each warning is printed only once for a command line.

    Raises:
        UsageError: The project folder must not be pushed: it is or holds a home folder,
            or it holds onebox's own key, state or local boxes.
    """
    reason = paths.why_no_project(context.root, context.environ)
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


def select_project(
    context: BoxContext, index: Index | None = None, *, code_only: bool = False
) -> Selection:
    """
    Select the files that `[push]` names; see `select_files`.

    Args:
        code_only: Select its code only, and print no warnings.
    """
    push = context.settings.push
    outputs = [*output_roots(context), *noted_folders(context)]
    if code_only:
        return select(context.root, push.code, (), outputs, index)
    return select_files(context, push.code, push.local_data, outputs, index)


def describe_left_out(selection: Selection) -> str:
    """Return a phrase that names the outputs and caches that are not pushed, or ""."""
    phrases = []
    for label, folders in (
        ("outputs", selection.left_out),
        ("caches", selection.caches),
    ):
        names = [
            f"{formatting.path(folder.path)} ({formatting.count(folder.files, 'file')})"
            for folder in folders
        ]
        if names:
            phrases.append(f"{label} not pushed: {formatting.first_names(names)}")
    return "; ".join(phrases)


def configured_outputs(context: BoxContext) -> list[str]:
    """Return the paths of outputs and checkpoints that onebox.toml names now."""
    fetch = context.settings.fetch
    return [*dict.fromkeys([*fetch.outputs, *fetch.checkpoints, *_unit_roots(context)])]


def checkpoint_paths(context: BoxContext) -> tuple[str, ...]:
    """
    Return the paths that are fetched while the job runs.

    On spot capacity they include the folder of all units, so that units that are done
    do not run again after a preemption.
    """
    checkpoints = context.settings.fetch.checkpoints
    if context.chain.units is None or not context.settings.wants_spot:
        return checkpoints
    return tuple(dict.fromkeys([*checkpoints, context.chain.units.plan.root]))


def _unit_roots(context: BoxContext) -> list[str]:
    """Return the folder that holds the outputs of all units, if there are units."""
    if context.chain.units is not None:
        return [context.chain.units.plan.root]
    table = context.settings.map
    if table.command or table.over or table.params:
        return [table.root]
    return []


def output_roots(context: BoxContext) -> list[str]:
    """
    Return the output paths that onebox.toml names, and those of the box.

    Those of the box are the paths that were configured for its latest job and for the
    commands and shells that have run there since the last fetch.
    """
    record = context.store.record
    of_job = filter(None, record.job_outputs.split("\n"))
    of_sessions = context.store.sessions.outputs(record.box)
    configured = configured_outputs(context)
    return list(dict.fromkeys([*configured, *of_job, *of_sessions]))


def roots_of_attempt(context: BoxContext) -> list[str]:
    """Return the paths of `output_roots` that are not pulled as checkpoints."""
    checkpoints = checkpoint_paths(context)
    return [root for root in output_roots(context) if root not in checkpoints]


def note_folder(context: BoxContext, folder: Path) -> None:
    """Record that outputs are fetched into *folder*, if it is inside the project."""
    if context.root not in folder.parents:
        return
    path = str(folder.relative_to(context.root))
    if path not in noted_folders(context):
        # The first line break ends a line that a crash has cut short.
        append_line(context.fetch_memory / FOLDERS, f"\n{json.dumps(path)}\n")


def noted_folders(context: BoxContext) -> list[str]:
    """Return the folders of the project that outputs are fetched into."""
    folders = []
    template = context.settings.fetch.outputs_to
    if template is not None:
        # Add the folder that `outputs_to` names before its placeholder. It is needed
        # because the folder of a box is recorded only when its outputs are fetched.
        folders.append(template.partition("{")[0].rpartition("/")[0] or template)
    for file in sorted(context.fetch_memory.parent.glob(f"*/{FOLDERS}")):
        with suppress(OSError):
            for line in read_regular(file).decode("utf-8", "replace").splitlines():
                # A line that a crash has cut short, or that a cloned project has
                # brought, is ignored. Its folder is treated as code.
                with suppress(ValueError, RecursionError):
                    folder = json.loads(line)
                    job_output(folder if isinstance(folder, str) else "")
                    folders.append(folder)
    return folders
