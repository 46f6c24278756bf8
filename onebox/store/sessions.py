"""Record which commands of the user run on a box, and whether any has run there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from onebox.store.atomic_files import disk_errors, private_dir, write_atomically
from onebox.store.identity import random_id
from onebox.store.run_queue import RunQueue, WaitingRun


class _Document(NamedTuple):
    """What the file has: the box, its mark, and the outputs of its sessions."""

    box: str
    mark: str
    outputs: tuple[str, ...] = ()


class Sessions:
    """
    The sessions of `exec`, `ssh` and `notebook` on the box of one directory.

    A session may leave files on the box, and no record of a job tells of them. So the
    box has a *mark*: "" if no session has begun since the box was created or its
    outputs were fetched, a random text if one has, None if it is unknown. The paths of
    the outputs that were configured for these sessions are kept too, because the
    settings of a later command line can name others.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = directory / "sessions.json"
        self._commands = RunQueue(directory / "commands")
        self._shells = RunQueue(directory / "shells")

    @contextmanager
    def during(self, line: str, *, interactive: bool) -> Iterator[None]:
        """
        Make known that a session runs while the body does.

        It waits while a box is being removed (see `none_begins`).

        Args:
            line: The command line of the session.

            interactive: Whether it is a shell of the user, which does not keep the box.
        """
        with (self._shells if interactive else self._commands).place(line, ""):
            yield

    def commands(self) -> list[WaitingRun]:
        """Return the commands that run on the box now, the oldest first."""
        return self._commands.runs()

    @contextmanager
    def none_begins(self) -> Iterator[list[WaitingRun]]:
        """Let no command begin during the body; yield those that run already."""
        with self._commands.frozen() as running:
            yield running

    def mark(self, box_id: str) -> str | None:
        """Return the mark of a box."""
        document = self._read(box_id)
        return document.mark if document else None

    def outputs(self, box_id: str) -> Sequence[str]:
        """Return the paths of outputs of the sessions that `mark` tells of."""
        document = self._read(box_id)
        return document.outputs if document else ()

    def note_session(self, box_id: str, outputs: Sequence[str]) -> None:
        """Give the box a new mark, and record the configured outputs of a session."""
        paths = dict.fromkeys([*self.outputs(box_id), *outputs])
        self._write(_Document(box_id, random_id(8), tuple(paths)))

    def note_new_box(self, box_id: str) -> None:
        """Record that no session has begun on the box."""
        self._write(_Document(box_id, ""))

    def note_fetched(self, box_id: str, before: str | None) -> None:
        """
        Record that the outputs are here.

        A session that has begun since *before*, which was the mark when the fetch
        began, or that still runs, may have left more.
        """
        alone = not (self._commands.runs() or self._shells.runs())
        if alone and self.mark(box_id) == before:
            self._write(_Document(box_id, ""))

    def _read(self, box_id: str) -> _Document | None:
        """Return what is recorded; None if it is damaged or of another box."""
        with suppress(OSError, ValueError, TypeError, LookupError):
            found = json.loads(self._path.read_bytes())
            if found["box"] == box_id:
                outputs = tuple(str(path) for path in found.get("outputs", ()))
                return _Document(box_id, str(found["mark"]), outputs)
        return None

    def _write(self, document: _Document) -> None:
        with disk_errors(self._path):
            private_dir(self._directory)
            write_atomically(self._path, json.dumps(document._asdict()).encode())
