"""What fetches have put here, and what of it is still as it was."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

from ..agent import manifest, names
from ..agent.index import Index
from ..agent.manifest import Entry
from .settling import sync_folder


class Remembered:
    """
    What fetches have put here: path to hash, in `fetched.json`.

    While files are being placed, a path has two hashes that are ours: the one
    before and the one after.
    """

    def __init__(self, memory: Path) -> None:
        self._file = memory / "fetched.json"
        self._ours: dict[str, list[str]] = {}
        self._saved = b""
        with contextlib.suppress(OSError, ValueError):
            self._saved = self._file.read_bytes()
            told = json.loads(self._saved)
            self._ours = {str(path): list(marks) for path, marks in told.items()}

    def paths(self) -> list[bytes]:
        """Return all paths, sorted."""
        return sorted(map(names.raw, self._ours))

    def is_ours(self, entry: Entry) -> bool:
        """Say whether what is here is what a fetch put here."""
        return _mark(entry) in self._ours.get(names.text(entry.path), ())

    def add(self, entries: Iterable[Entry]) -> None:
        """Remember what is about to be placed, beside what was there."""
        for entry in entries:
            if entry.kind != "d":
                marks = self._ours.setdefault(names.text(entry.path), [])
                if _mark(entry) not in marks:
                    marks.append(_mark(entry))

    def settle(self, entries: Iterable[Entry]) -> None:
        """Remember that this is what is there now."""
        for entry in entries:
            if entry.kind != "d":
                self._ours[names.text(entry.path)] = [_mark(entry)]

    def save(self) -> None:
        """Write it to the disk, whole or not at all."""
        data = json.dumps(self._ours).encode("ascii")
        if data == self._saved:
            return
        fresh = self._file.with_suffix(".new")
        with fresh.open("wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        fresh.replace(self._file)
        sync_folder(self._file.parent)
        self._saved = data


class Last:
    """The paths of the last fetch, folders among them, in `fetched.paths`."""

    def __init__(self, memory: Path) -> None:
        self._file = memory / "fetched.paths"
        self._saved = b""
        with contextlib.suppress(OSError):
            self._saved = self._file.read_bytes()

    def look(self, into: Path, known: Index) -> list[Entry]:
        """Return what is here of them now; read no file for it."""
        paths = self._saved.split(b"\0")[:-1]
        found = manifest.scan(os.fsencode(into), paths, known, hashing=False)
        return found.entries

    def save(self, entries: Iterable[Entry]) -> None:
        """Remember these; to lose them costs a little time, nothing else."""
        data = b"".join(entry.path + b"\0" for entry in entries)
        if data != self._saved:
            fresh = self._file.with_suffix(".new")
            fresh.write_bytes(data)
            fresh.replace(self._file)
            self._saved = data


def _mark(entry: Entry) -> str:
    if entry.kind == "l":
        return "-> " + names.text(entry.target)
    return (entry.sha or b"").hex()
