"""Write a copy of the receipt beside the outputs that have been fetched."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

from onebox import formatting
from onebox.agent.files.manifest import Entry
from onebox.context import BoxContext
from onebox.store.atomic_files import clear_drafts, read_regular, write_atomically
from onebox.transfer.select import RECEIPT


def write(context: BoxContext, folder: Path, data: bytes) -> None:
    """Write a receipt into the output folder, if the fetch has put files there."""
    beside = _output_folder(context)
    if beside is None:
        return
    try:
        write_atomically(beside / RECEIPT, data, mode=0o644)
    except PermissionError:
        # The output folder has the same mode here as on the box, so it may be
        # read-only.
        kept = formatting.path(str(folder.relative_to(context.root)))
        context.screen.warn(
            f"{formatting.path(beside.name)} is read-only: the receipt is in {kept}"
        )
    clear_drafts(beside, f".{RECEIPT}-*")


def _output_folder(context: BoxContext) -> Path | None:
    """
    Return the first output folder with fetched files.

    Return None if there is no such folder. Also return None if another file in this
    folder has the receipt's name: an output of the job, or a file of the user.
    """
    fetched = context.chain.fetched
    entries = fetched.entries if fetched is not None else []
    for path in context.settings.fetch.outputs:
        folder, top = context.outputs_folder / path, os.fsencode(path.rstrip("/") + "/")
        has_files = any(entry.path.startswith(top) for entry in entries)
        if has_files and folder.is_dir() and not folder.is_symlink():
            return folder if _is_free(context, folder, top, entries) else None
    return None


def _is_free(
    context: BoxContext, folder: Path, top: bytes, entries: list[Entry]
) -> bool:
    """
    Return whether a receipt can be written into *folder*.

    If another file there has the receipt's name, print a warning and return False.
    """
    name = top + os.fsencode(RECEIPT)
    if any(entry.path == name for entry in entries):
        owner = "an output of the job"
    elif os.path.lexists(folder / RECEIPT) and not _is_receipt(folder / RECEIPT):
        owner = "a file of yours"
    else:
        return True
    context.screen.warn(
        f"{formatting.path(name)} is {owner}: the job's receipt is only in "
        f"{context.local_dir.name}/jobs"
    )
    return False


def _is_receipt(path: Path) -> bool:
    """Return whether onebox wrote a file, also if an earlier version did."""
    with suppress(OSError, ValueError, RecursionError):
        document = json.loads(read_regular(path))
        return isinstance(document, dict) and {"job", "box"} <= document.keys()
    return False
