"""Outputs of one box that a fetch from another box has moved out of its way."""

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
from onebox.transfer.ledger import Ledger

FILE = "displaced.jsonl"


def note(
    memory: Path, into: Path, kept: Iterable[tuple[bytes, bytes]], index: Index
) -> dict[bytes, str]:
    """
    Note for each box where its displaced outputs are now.

    Args:
        memory: The memory folder of the box whose outputs were installed.

        kept: The displaced paths, each with its new name.

    Returns:
        The names of the boxes whose outputs were displaced, by path.
    """
    others = [
        (folder, Ledger(folder))
        for folder in sorted(memory.parent.iterdir())
        if folder != memory and folder.is_dir()
    ]
    owners = {}
    for path, now in kept:
        for folder, ledger in others:
            moved = _entries(into, now, path, index)
            if moved and all(ledger.is_ours(entry) for entry in moved):
                owners[path] = folder.name
                with (folder / FILE).open("a", encoding="ascii") as out:
                    row = [
                        _relative(into, folder),
                        file_names.text(path),
                        file_names.text(now),
                    ]
                    out.write(json.dumps(row) + "\n")
                    out.flush()
                    os.fsync(out.fileno())
                break
    return owners


def entries(memory: Path, into: Path, index: Index) -> dict[bytes, Entry]:
    """Return the displaced outputs of this box, by their original paths."""
    displaced = {}
    # A file that is missing or cut off by a crash ends the list.
    with contextlib.suppress(OSError, ValueError, TypeError):
        for line in (memory / FILE).read_text("ascii").splitlines():
            folder, path, now = json.loads(line)
            if folder == _relative(into, memory):
                moved = _entries(into, file_names.raw(now), file_names.raw(path), index)
                displaced.update({entry.path: entry for entry in moved})
    return displaced


def forget(memory: Path) -> None:
    """Note that all outputs of this box are at their own paths."""
    (memory / FILE).unlink(missing_ok=True)


def _relative(into: Path, memory: Path) -> str:
    """Return a relative path, so that the project can be moved."""
    return os.path.relpath(into, memory)


def _entries(into: Path, now: bytes, path: bytes, index: Index) -> list[Entry]:
    """Return the entries at and below *now*, as if they were at *path*."""
    base = os.fsencode(into)
    scanned = manifest.scan(base, manifest.below(base, now), index, hashing=True)
    return [
        entry._replace(path=path + entry.path[len(now) :])
        for entry in scanned.entries
        if entry.kind != "d"
    ]
