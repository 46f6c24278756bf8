"""Record which commands of the user run on a box, and whether any has run there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from onebox.store.atomic_files import disk_errors, private_dir, write_atomically
from onebox.store.identity import random_id
from onebox.store.run_queue import RunQueue, WaitingRun


class Sessions:
    """
    The sessions of `exec`, `ssh` and `notebook` on the box of one directory.

    A session may leave files on the box, and no record of a job tells of them. So the
    box has a *mark*: "" if no session has begun since the box was created or its
    outputs were fetched, a random text if one has, None if it is unknown.
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
        with suppress(OSError, ValueError, TypeError, LookupError):
            document = json.loads(self._path.read_bytes())
            if document["box"] == box_id:
                return str(document["mark"])
        return None

    def note_session(self, box_id: str) -> None:
        """Give the box a new mark."""
        self._write(box_id, random_id(8))

    def note_new_box(self, box_id: str) -> None:
        """Record that no session has begun on the box."""
        self._write(box_id, "")

    def note_fetched(self, box_id: str, before: str | None) -> None:
        """
        Record that the outputs are here.

        A session that has begun since *before*, which was the mark when the fetch
        began, or that still runs, may have left more.
        """
        alone = not (self._commands.runs() or self._shells.runs())
        if alone and self.mark(box_id) == before:
            self._write(box_id, "")

    def _write(self, box_id: str, mark: str) -> None:
        document = {"box": box_id, "mark": mark}
        with disk_errors(self._path):
            private_dir(self._directory)
            write_atomically(self._path, json.dumps(document).encode())
