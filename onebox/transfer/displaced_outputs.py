"""Outputs of one box that the fetch of another has moved out of its way."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

from onebox.agent import file_names
from onebox.agent.files import manifest
from onebox.agent.files.hash_index import Index
from onebox.agent.files.manifest import Entry
from onebox.transfer.ledger import Remembered

NAME = "displaced.jsonl"


def note(
    memory: Path, into: Path, kept: Iterable[tuple[bytes, bytes]], known: Index
) -> dict[bytes, str]:
    """
    Tell the boxes whose outputs were moved where they are now.

    Args:
        memory: That of the box whose outputs have taken their places.

        kept: Each path, and the name that what was there has now.

    Returns:
        The name of the box whose outputs they were, by path.
    """
    others = [
        (folder, Remembered(folder))
        for folder in sorted(memory.parent.iterdir())
        if folder != memory and folder.is_dir()
    ]
    found = {}
    for path, now in kept:
        for folder, remembered in others:
            moved = _entries(into, now, path, known)
            if moved and all(remembered.is_ours(entry) for entry in moved):
                found[path] = folder.name
                with (folder / NAME).open("a", encoding="ascii") as out:
                    row = [
                        _way(into, folder),
                        file_names.text(path),
                        file_names.text(now),
                    ]
                    out.write(json.dumps(row) + "\n")
                    out.flush()
                    os.fsync(out.fileno())
                break
    return found


def entries(memory: Path, into: Path, known: Index) -> dict[bytes, Entry]:
    """Return what is elsewhere of this box's outputs, by the path that it had."""
    found = {}
    # What a crash has cut off, or somebody has removed, is not here.
    with contextlib.suppress(OSError, ValueError, TypeError):
        for line in (memory / NAME).read_text("ascii").splitlines():
            folder, path, now = json.loads(line)
            if folder == _way(into, memory):
                moved = _entries(into, file_names.raw(now), file_names.raw(path), known)
                found.update({entry.path: entry for entry in moved})
    return found


def forget(memory: Path) -> None:
    """Take note that all outputs of this box are in their own places."""
    (memory / NAME).unlink(missing_ok=True)


def _way(into: Path, memory: Path) -> str:
    """Name a folder so that the project may be moved."""
    return os.path.relpath(into, memory)


def _entries(into: Path, now: bytes, path: bytes, known: Index) -> list[Entry]:
    """Return what is below a name, as if it were below another one."""
    base = os.fsencode(into)
    found = manifest.scan(base, manifest.below(base, now), known, hashing=True)
    return [
        entry._replace(path=path + entry.path[len(now) :])
        for entry in found.entries
        if entry.kind != "d"
    ]
