"""Which paths on the box are outputs, and into which folders here they are fetched."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onebox.context import BoxContext

# One file per box name: one folder a line as JSON, relative to the project.
FILE = "folders.jsonl"


def configured_roots(context: BoxContext) -> list[str]:
    """Return the output paths on the box that onebox.toml names now."""
    fetch = context.settings.fetch
    return [*fetch.outputs, *fetch.checkpoints]


def roots(context: BoxContext) -> list[str]:
    """Return the output paths of onebox.toml and those of the latest job."""
    of_job = context.store.record.job_outputs.split("\n")
    return list(dict.fromkeys([*configured_roots(context), *filter(None, of_job)]))


def note_folder(context: BoxContext, folder: Path) -> None:
    """Record a folder of the project as one that outputs are fetched into."""
    if context.root not in folder.parents:
        return
    path = str(folder.relative_to(context.root))
    if path not in noted_folders(context):
        with (context.fetch_memory / FILE).open("a", encoding="utf-8") as out:
            out.write(json.dumps(path) + "\n")


def noted_folders(context: BoxContext) -> list[str]:
    """Return the folders of the project that outputs are fetched into: not code."""
    folders = []
    template = context.settings.fetch.outputs_to
    if template is not None:
        # The folders of boxes whose outputs were never fetched are not recorded.
        folders.append(template.partition("{")[0].rpartition("/")[0] or template)
    for file in sorted(context.fetch_memory.parent.glob(f"*/{FILE}")):
        # A crash may have cut the last line short: then its folder is treated as code.
        with suppress(OSError, ValueError):
            folders += [
                json.loads(line) for line in file.read_text("utf-8").splitlines()
            ]
    return folders
