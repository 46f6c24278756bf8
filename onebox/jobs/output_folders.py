"""The folders of the project that outputs were put in: they are no code."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onebox.context import BoxContext

# A file of each box name: one folder a line, relative to the project, as JSON.
FILE = "folders.jsonl"


def note(context: BoxContext, into: Path) -> None:
    """Note that a folder holds outputs, if it lies in the project."""
    if context.root not in into.parents:
        return
    place = str(into.relative_to(context.root))
    if place not in noted(context):
        with (context.memory / FILE).open("a", encoding="utf-8") as out:
            out.write(json.dumps(place) + "\n")


def noted(context: BoxContext) -> list[str]:
    """Return the folders that outputs of this project's boxes are put in."""
    found = []
    template = context.settings.fetch.outputs_to
    if template is not None:
        # Also those of boxes whose outputs were not fetched yet.
        found.append(template.partition("{")[0].rpartition("/")[0] or template)
    for file in sorted(context.memory.parent.glob(f"*/{FILE}")):
        # A line cut off by a crash is ignored: its folder is pushed once more.
        with suppress(OSError, ValueError):
            found += [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    return found
