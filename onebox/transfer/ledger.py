"""
Record which files the fetches installed here, and where those files are now.

The ledger distinguishes files that a fetch installed from files of the user. Outputs of
one box are called displaced if a fetch from another box has moved them out of its way.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from onebox.agent.file_names import raw, text
from onebox.agent.files import manifest
from onebox.agent.files.hash_index import Index
from onebox.agent.files.key_value_file import KeyValueFile
from onebox.agent.files.manifest import Entry
from onebox.store.atomic_files import append_line, open_file, read_regular

LINK = b"-> "
DISPLACED = "displaced.jsonl"


class Replaced(NamedTuple):
    """
    Files of other boxes that a fetch replaces, because their boxes have them no more.

    Attributes:
        memories: The memories of those boxes.

        folders: The folders of the files, of the same depth, without a "/" at the end.
    """

    memories: Sequence[Path]
    folders: frozenset[bytes]

    def has(self, path: bytes) -> bool:
        """Return whether a path is in one of the folders."""
        for folder in self.folders:
            depth = folder.count(b"/") + 1
            return b"/".join(path.split(b"/")[:depth]) in self.folders
        return False


class Ledger:
    """
    The paths that fetches installed, each with the mark of its contents.

    A mark is the hash of a file or the target of a link. While files are being
    installed, a path has two marks: one of the old contents and one of the new
    contents. After a crash either of them may be at the path, and a fetch installed
    both.

    Args:
        replaced: Files of other boxes that count as ours too.
    """

    MAGIC = b"onebox ledger 1\n"

    def __init__(self, memory: Path, replaced: Replaced | None = None) -> None:
        self._replaced = replaced or Replaced((), frozenset())
        self._others = [Ledger(other) for other in self._replaced.memories]
        file = os.fsencode(memory / "fetched.ledger")
        self._table = KeyValueFile(file, self.MAGIC, durable=True)

    def paths(self) -> list[bytes]:
        """Return all paths, sorted."""
        return sorted(self._table.rows)

    def is_ours(self, entry: Entry) -> bool:
        """Return whether a file or link has the contents that a fetch installed."""
        if _mark(entry) in self._marks(entry.path):
            return True
        if not self._replaced.has(entry.path):
            return False
        return any(other.is_ours(entry) for other in self._others)

    def add(self, entries: Iterable[Entry]) -> None:
        """Add the marks of entries that are about to be installed."""
        for entry in entries:
            if entry.kind != "d":
                marks, mark = self._marks(entry.path), _mark(entry)
                if mark not in marks:
                    self._table.put(entry.path, b"\0".join([*marks, mark]))

    def mark_installed(self, entries: Iterable[Entry]) -> None:
        """Record that these entries are installed; each keeps only its new mark."""
        for entry in entries:
            if entry.kind != "d":
                mark = _mark(entry)
                if self._table.rows.get(entry.path) != mark:
                    self._table.put(entry.path, mark)

    def save(self) -> None:
        """
        Write the changes of the ledger, and wait until they are on the disk.

        Raises:
            OSError: The ledger cannot be written.
        """
        self._table.save()

    def _marks(self, path: bytes) -> list[bytes]:
        value = self._table.rows.get(path)
        return [] if value is None else value.split(b"\0")


class LastFetch:
    """The paths of the last fetch, with folders; the file `fetched.paths` has them."""

    def __init__(self, memory: Path) -> None:
        self._file = memory / "fetched.paths"
        self._saved = b""
        with contextlib.suppress(OSError):
            self._saved = read_regular(self._file)

    def paths(self) -> frozenset[bytes]:
        """Return the paths; an empty set if they are unknown."""
        return frozenset(self._saved.split(b"\0")[:-1])

    def entries(self, into: Path, index: Index) -> list[Entry]:
        """Return the entries that are at these paths now, without reading contents."""
        scanned = manifest.scan(os.fsencode(into), self.paths(), index, hashing=False)
        return scanned.entries

    def save(self, entries: Iterable[Entry]) -> None:
        """
        Store the paths, without waiting for the disk.

        If they are lost, the next fetch is only a little slower.
        """
        data = b"".join(entry.path + b"\0" for entry in entries)
        if data != self._saved:
            draft = self._file.with_suffix(".new")
            with os.fdopen(open_file(draft, os.O_WRONLY | os.O_TRUNC), "wb") as out:
                out.write(data)
            draft.replace(self._file)
            self._saved = data

    def note_installed(self) -> None:
        """Record that the files are installed and the folders have their modes."""
        # Without any path there is no file.
        with contextlib.suppress(FileNotFoundError):
            os.utime(self._file)

    def has_sealed(self, into: Path, path: str) -> bool:
        """Return whether the folder *path* has its mode since the last fetch."""
        if raw(path) not in self.paths():
            return False
        changed = (into / path).stat().st_ctime_ns
        return changed <= self._file.stat().st_mtime_ns


def note_displaced(
    memory: Path, into: Path, kept_aside: Iterable[tuple[bytes, bytes]], index: Index
) -> dict[bytes, str]:
    """
    Record for each box where its displaced outputs are now.

    Args:
        memory: The memory folder of the box whose outputs were installed.

        kept_aside: The paths that were moved out of the way, each with its new name.

    Returns:
        A dictionary with those paths of *kept_aside* that held outputs of another box.
        It maps each such path to the name of that box.
    """
    others = [
        (folder, Ledger(folder))
        for folder in sorted(memory.parent.iterdir())
        if folder != memory and folder.is_dir()
    ]
    owners = {}
    for path, now in kept_aside:
        for folder, ledger in others:
            moved = _moved_entries(into, now, path, index)
            if moved and all(ledger.is_ours(entry) for entry in moved):
                owners[path] = folder.name
                row = [_relative(into, folder), text(path), text(now)]
                append_line(folder / DISPLACED, json.dumps(row) + "\n")
                break
    return owners


def displaced_entries(memory: Path, into: Path, index: Index) -> dict[bytes, Entry]:
    """Return the displaced outputs of this box, by their original paths."""
    displaced = {}
    # The file may not exist, or a crash may have left an incomplete line in it. Then
    # only the entries of the lines above are returned.
    with contextlib.suppress(OSError, ValueError, TypeError):
        for line in read_regular(memory / DISPLACED).decode("ascii").splitlines():
            folder, path, now = json.loads(line)
            if folder == _relative(into, memory):
                moved = _moved_entries(into, raw(now), raw(path), index)
                displaced.update({entry.path: entry for entry in moved})
    return displaced


def forget_displaced(memory: Path) -> None:
    """Record that all outputs of this box are at their own paths."""
    (memory / DISPLACED).unlink(missing_ok=True)


def _mark(entry: Entry) -> bytes:
    """
    Return the mark of an entry.

    A hash is written in hex, so that it cannot contain a NUL, which separates marks.
    """
    if entry.kind == "l":
        return LINK + entry.target
    return (entry.sha or b"").hex().encode("ascii")


def _relative(into: Path, memory: Path) -> str:
    """
    Return the path of *into* relative to *memory*.

    A relative path stays valid if the project is moved.
    """
    return os.path.relpath(into, memory)


def _moved_entries(into: Path, now: bytes, path: bytes, index: Index) -> list[Entry]:
    """
    Return the entries of outputs that were moved from *path* to *now*.

    These are the files and links at and below *now*, with the paths that they had
    before the move.
    """
    base = os.fsencode(into)
    scanned = manifest.scan(base, manifest.below(base, now), index, hashing=True)
    return [
        entry._replace(path=path + entry.path[len(now) :])
        for entry in scanned.entries
        if entry.kind != "d"
    ]
