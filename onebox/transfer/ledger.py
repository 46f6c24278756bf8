"""
The ledger of fetches: what they installed here, and where it is now.

It tells files that a fetch installed from files of the user. A fetch from one box may
have moved outputs of another box out of its way: these are called displaced.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

from onebox.agent.file_names import raw, text
from onebox.agent.files import manifest
from onebox.agent.files.hash_index import Index
from onebox.agent.files.key_value_file import KeyValueFile
from onebox.agent.files.manifest import Entry

LINK = b"-> "
DISPLACED = "displaced.jsonl"


class Ledger:
    """
    The paths that fetches installed, each with the mark of its contents.

    A mark is the hash of a file or the target of a link. While files are being
    installed a path has two marks, the one before and the one after: a crash leaves
    either, and both are ours.
    """

    MAGIC = b"onebox ledger 1\n"

    def __init__(self, memory: Path) -> None:
        file = os.fsencode(memory / "fetched.ledger")
        self._table = KeyValueFile(file, self.MAGIC, durable=True)

    def paths(self) -> list[bytes]:
        """Return all paths, sorted."""
        return sorted(self._table.rows)

    def is_ours(self, entry: Entry) -> bool:
        """Return whether a file or link is as a fetch installed it."""
        return _mark(entry) in self._marks(entry.path)

    def add(self, entries: Iterable[Entry]) -> None:
        """Add the marks of entries that are about to be installed."""
        for entry in entries:
            if entry.kind != "d":
                marks, mark = self._marks(entry.path), _mark(entry)
                if mark not in marks:
                    self._table.put(entry.path, b"\0".join([*marks, mark]))

    def settle(self, entries: Iterable[Entry]) -> None:
        """Store that these entries are installed: each has one mark from now on."""
        for entry in entries:
            if entry.kind != "d":
                mark = _mark(entry)
                if self._table.rows.get(entry.path) != mark:
                    self._table.put(entry.path, mark)

    def save(self) -> None:
        """Write what has changed; it is on the disk on return. Raises OSError."""
        self._table.save()

    def _marks(self, path: bytes) -> list[bytes]:
        value = self._table.rows.get(path)
        return [] if value is None else value.split(b"\0")


class LastFetch:
    """The paths of the last fetch, folders included, in `fetched.paths`."""

    def __init__(self, memory: Path) -> None:
        self._file = memory / "fetched.paths"
        self._saved = b""
        with contextlib.suppress(OSError):
            self._saved = self._file.read_bytes()

    def paths(self) -> frozenset[bytes]:
        """Return the paths; an empty set if they are unknown."""
        return frozenset(self._saved.split(b"\0")[:-1])

    def entries(self, into: Path, index: Index) -> list[Entry]:
        """Return what is at these paths now, without reading files."""
        scanned = manifest.scan(os.fsencode(into), self.paths(), index, hashing=False)
        return scanned.entries

    def save(self, entries: Iterable[Entry]) -> None:
        """Store the paths; a loss only makes the next fetch a little slower."""
        data = b"".join(entry.path + b"\0" for entry in entries)
        if data != self._saved:
            draft = self._file.with_suffix(".new")
            draft.write_bytes(data)
            draft.replace(self._file)
            self._saved = data


def note_displaced(
    memory: Path, into: Path, kept: Iterable[tuple[bytes, bytes]], index: Index
) -> dict[bytes, str]:
    """
    Record for each box where its displaced outputs are now.

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
            moved = _moved_entries(into, now, path, index)
            if moved and all(ledger.is_ours(entry) for entry in moved):
                owners[path] = folder.name
                with (folder / DISPLACED).open("a", encoding="ascii") as out:
                    row = [_relative(into, folder), text(path), text(now)]
                    out.write(json.dumps(row) + "\n")
                    out.flush()
                    os.fsync(out.fileno())
                break
    return owners


def displaced_entries(memory: Path, into: Path, index: Index) -> dict[bytes, Entry]:
    """Return the displaced outputs of this box, by their original paths."""
    displaced = {}
    # A file that is missing or cut off by a crash ends the list.
    with contextlib.suppress(OSError, ValueError, TypeError):
        for line in (memory / DISPLACED).read_text("ascii").splitlines():
            folder, path, now = json.loads(line)
            if folder == _relative(into, memory):
                moved = _moved_entries(into, raw(now), raw(path), index)
                displaced.update({entry.path: entry for entry in moved})
    return displaced


def forget_displaced(memory: Path) -> None:
    """Record that all outputs of this box are at their own paths."""
    (memory / DISPLACED).unlink(missing_ok=True)


def _mark(entry: Entry) -> bytes:
    """Return the mark of an entry; the hash is in hex, because a mark has no NUL."""
    if entry.kind == "l":
        return LINK + entry.target
    return (entry.sha or b"").hex().encode("ascii")


def _relative(into: Path, memory: Path) -> str:
    """Return a relative path, so that the project can be moved."""
    return os.path.relpath(into, memory)


def _moved_entries(into: Path, now: bytes, path: bytes, index: Index) -> list[Entry]:
    """Return the entries at and below *now*, as if they were at *path*."""
    base = os.fsencode(into)
    scanned = manifest.scan(base, manifest.below(base, now), index, hashing=True)
    return [
        entry._replace(path=path + entry.path[len(now) :])
        for entry in scanned.entries
        if entry.kind != "d"
    ]
