"""
Keep the queue of the runs that wait for one box.

Each run that waits is a process, which holds the lock of its own ticket file. When the
process ends, even in a crash, its place is free.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onebox.signals import signals_delayed
from onebox.store.atomic_files import disk_errors, open_file, private_dir

# Only this many bytes of a ticket are read; a ticket is much smaller.
LONGEST = 1 << 16


@dataclass(frozen=True)
class WaitingRun:
    """
    A run that waits for the box.

    Attributes:
        number: The place in the queue; a lower number is served first.

        pid: The process that waits.

        command: Its command line.

        since: When it began to wait, in epoch seconds by this machine's clock.

        provider: The name of the provider that its command line asks for.
    """

    number: int
    pid: int
    command: str
    since: float
    provider: str


class RunQueue:
    """The runs that wait for one box, in *directory*."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @contextmanager
    def place(self, command: str, provider: str) -> Iterator[WaitingRun]:
        """
        Take the last place in the queue while the body runs.

        Raises:
            StateError: The ticket cannot be written.
        """
        with contextlib.ExitStack() as leave:
            # A signal between the ticket and its callbacks would leave it behind.
            with disk_errors(self.directory), signals_delayed():
                private_dir(self.directory)
                with self._locked():
                    taken = [run.number for run in self._tickets()]
                    run = WaitingRun(
                        max(taken, default=0) + 1,
                        os.getpid(),
                        command,
                        time.time(),
                        provider,
                    )
                    path = self.directory / f"{run.number}.json"
                    fd = open_file(path, os.O_RDWR | os.O_TRUNC)
                    # The ticket is removed while it is locked, because an unlocked one
                    # may already be that of the next run.
                    leave.callback(os.close, fd)
                    leave.callback(path.unlink, missing_ok=True)
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.write(fd, json.dumps(asdict(run)).encode())
            yield run

    def runs(self) -> list[WaitingRun]:
        """
        Return the runs that wait, the first one first.

        The tickets of processes that have ended are removed.
        """
        if not self.directory.is_dir():
            return []
        with disk_errors(self.directory), self._locked():
            return self._tickets()

    @contextmanager
    def frozen(self) -> Iterator[list[WaitingRun]]:
        """Yield the runs; while the body runs, no other one takes a place."""
        with disk_errors(self.directory):
            private_dir(self.directory)
            with self._locked():
                yield self._tickets()

    def ahead_of(self, run: WaitingRun) -> list[WaitingRun]:
        """Return the runs that are served before *run*."""
        return [other for other in self.runs() if other.number < run.number]

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock without which no ticket is made."""
        fd = open_file(self.directory / "lock", os.O_RDWR)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _tickets(self) -> list[WaitingRun]:
        """Return the runs whose process lives, in order; remove the other tickets."""
        found = []
        for path in self.directory.glob("*.json"):
            if not path.stem.isdecimal():
                continue
            try:
                fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except OSError:
                continue
            try:
                fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
            except BlockingIOError:
                found.append(_read(fd, int(path.stem)))
            finally:
                os.close(fd)
        return sorted(found, key=lambda run: run.number)


def _read(fd: int, number: int) -> WaitingRun:
    """Return the run of an open ticket; a field that another version lacks is empty."""
    try:
        values: Any = json.loads(os.read(fd, LONGEST))
        return WaitingRun(
            number=number,
            pid=int(values.get("pid", 0)),
            command=str(values.get("command", "")),
            since=float(values.get("since", 0.0)),
            provider=str(values.get("provider", "")),
        )
    except (ValueError, TypeError, AttributeError):
        return WaitingRun(number, 0, "", os.fstat(fd).st_mtime, "")
