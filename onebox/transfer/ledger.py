"""What fetches have put here, and what of it is still as it was."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO, Union

from onebox.agent import file_names
from onebox.agent.files import manifest
from onebox.agent.files.hash_index import Index
from onebox.agent.files.manifest import Entry
from onebox.transfer.fsync import sync_folder

# The hash of a file, or what a link says.
Mark = Union[bytes, str]
LINK = "-> "
# So many in a line: to read or write all at once would take a lot of memory.
ROWS = 1000


class Remembered:
    """
    What fetches have put here: path and hash, a row of each, in `fetched.jsonl`.

    While files are being placed, a path has two hashes that are ours: the one
    before and the one after. News are added at the file's end, where they count
    for more than what stands above; now and then it is written anew.
    """

    def __init__(self, memory: Path) -> None:
        self._file = memory / "fetched.jsonl"
        self._ours: dict[bytes, tuple[Mark, ...]] = {}
        self._news: set[bytes] = set()
        # Rows in the file; none that is worth adding to, if it is not whole.
        self._rows = 0
        # What a crash has cut off had not been placed yet.
        with contextlib.suppress(OSError, ValueError, TypeError):
            for path, marks in _rows(self._file):
                self._ours[path] = marks
                self._rows += 1
            return
        self._rows = 0

    def paths(self) -> list[bytes]:
        """Return all paths, sorted."""
        return sorted(self._ours)

    def is_ours(self, entry: Entry) -> bool:
        """Say whether what is here is what a fetch put here."""
        return _mark(entry) in self._ours.get(entry.path, ())

    def add(self, entries: Iterable[Entry]) -> None:
        """Remember what is about to be placed, beside what was there."""
        for entry in entries:
            if entry.kind != "d":
                marks, mark = self._ours.get(entry.path, ()), _mark(entry)
                if mark not in marks:
                    self._remember(entry.path, (*marks, mark))

    def settle(self, entries: Iterable[Entry]) -> None:
        """Remember that this is what is there now."""
        for entry in entries:
            if entry.kind != "d":
                marks = (_mark(entry),)
                if self._ours.get(entry.path) != marks:
                    self._remember(entry.path, marks)

    def save(self) -> None:
        """Have it on the disk, if anything is new in it."""
        if not self._news:
            return
        if self._rows + len(self._news) <= 2 * len(self._ours) and self._rows:
            with self._file.open("a", encoding="ascii") as out:
                self._write(out, self._news)
            self._rows += len(self._news)
        else:
            fresh = self._file.with_suffix(".new")
            with fresh.open("w", encoding="ascii") as out:
                self._write(out, self._ours)
            fresh.replace(self._file)
            sync_folder(self._file.parent)
            self._rows = len(self._ours)
        self._news.clear()

    def _write(self, out: TextIO, paths: Iterable[bytes]) -> None:
        coming = iter(paths)
        while some := [
            _row(path, self._ours[path]) for path in itertools.islice(coming, ROWS)
        ]:
            out.write(json.dumps(some) + "\n")
        out.flush()
        os.fsync(out.fileno())

    def _remember(self, path: bytes, marks: tuple[Mark, ...]) -> None:
        self._ours[path] = marks
        self._news.add(path)


class Last:
    """The paths of the last fetch, folders among them, in `fetched.paths`."""

    def __init__(self, memory: Path) -> None:
        self._file = memory / "fetched.paths"
        self._saved = b""
        with contextlib.suppress(OSError):
            self._saved = self._file.read_bytes()

    def paths(self) -> frozenset[bytes]:
        """Return these paths; none if they are not known."""
        return frozenset(self._saved.split(b"\0")[:-1])

    def look(self, into: Path, known: Index) -> list[Entry]:
        """Return what is here of them now; read no file for it."""
        found = manifest.scan(os.fsencode(into), self.paths(), known, hashing=False)
        return found.entries

    def save(self, entries: Iterable[Entry]) -> None:
        """Remember these; to lose them costs a little time, nothing else."""
        data = b"".join(entry.path + b"\0" for entry in entries)
        if data != self._saved:
            fresh = self._file.with_suffix(".new")
            fresh.write_bytes(data)
            fresh.replace(self._file)
            self._saved = data


def _row(path: bytes, marks: tuple[Mark, ...]) -> list[str]:
    told = [mark.hex() if isinstance(mark, bytes) else mark for mark in marks]
    return [file_names.text(path), *told]


def _rows(file: Path) -> Iterator[tuple[bytes, tuple[Mark, ...]]]:
    with file.open(encoding="ascii") as lines:
        for line in lines:
            if not line.endswith("\n"):
                raise ValueError("cut off")
            for path, *told in json.loads(line):
                marks = [m if m.startswith(LINK) else bytes.fromhex(m) for m in told]
                yield file_names.raw(path), tuple(marks)


def _mark(entry: Entry) -> Mark:
    if entry.kind == "l":
        return LINK + file_names.text(entry.target)
    return entry.sha or b""
