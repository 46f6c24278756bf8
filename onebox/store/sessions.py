"""Record which commands of the user run on a box, and whether any has run there."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from onebox.store.atomic_files import disk_errors, private_dir, write_atomically
from onebox.store.identity import random_id
from onebox.store.run_queue import RunQueue, WaitingRun, locked


class _Document(NamedTuple):
    """What the file has: the box, its mark, and the outputs of its sessions."""

    box: str
    mark: str
    outputs: tuple[str, ...] = ()


class Seen(NamedTuple):
    """The mark of a box at one time, and whether a session ran there then."""

    mark: str | None
    running: bool


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
    def during(
        self,
        line: str,
        box_id: str,
        *,
        interactive: bool,
        blocked: Callable[[], None] = lambda: None,
    ) -> Iterator[None]:
        """
        Make known that a session runs on a box while the body does.

        It waits while a box is being removed (see `none_begins`).

        Args:
            line: The command line of the session.

            interactive: Whether it is a shell of the user, which does not keep the box.

            blocked: Called again and again during that wait.
        """
        queue = self._shells if interactive else self._commands
        with queue.place(line, "", box=box_id, blocked=blocked):
            yield

    def commands(self, box_id: str) -> list[WaitingRun]:
        """Return the commands that run on a box now, the oldest first."""
        return self._commands.runs(box_id)

    @contextmanager
    def none_begins(self, box_id: str) -> Iterator[list[WaitingRun]]:
        """Let no command begin in the body; yield those that run already on a box."""
        with self._commands.frozen(box_id) as running:
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
        with self._changing():
            paths = dict.fromkeys([*self.outputs(box_id), *outputs])
            self._write(_Document(box_id, random_id(8), tuple(paths)))

    def note_new_box(self, box_id: str) -> None:
        """Record that no session has begun on the box."""
        with self._changing():
            self._write(_Document(box_id, ""))

    def seen(self, box_id: str) -> Seen:
        """Return what is seen now; see `has_run`."""
        # A session takes its place first, and then gives the box a new mark. One that
        # is missed by both lines has ended before.
        mark = self.mark(box_id)
        running = self._commands.runs(box_id) or self._shells.runs(box_id)
        return Seen(mark, bool(running))

    def has_run(self, box_id: str, since: Seen) -> bool:
        """Return whether a session has run at or since that time."""
        return since.running or self.mark(box_id) != since.mark

    def note_fetched(self, box_id: str, before: Seen) -> None:
        """
        Record that the outputs are here.

        Nothing is recorded if a session ran when the fetch began, or has begun since:
        it may have left more.
        """
        with self._changing():
            if not self.has_run(box_id, before):
                self._write(_Document(box_id, ""))

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Let no other process or thread change the file in the body."""
        with disk_errors(self._path):
            private_dir(self._directory)
            with locked(self._directory / "sessions.lock"):
                yield

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
            write_atomically(self._path, json.dumps(document._asdict()).encode())
