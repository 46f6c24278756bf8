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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onebox.signals import signals_delayed
from onebox.store.atomic_files import disk_errors, open_file, private_dir

# Only this many bytes of a ticket are read; a ticket is much smaller.
LONGEST = 1 << 16
# A run that cannot take its place yet tries again after this many seconds.
PAUSE = 0.1


@contextmanager
def locked(path: Path, how: int = 0) -> Iterator[None]:
    """
    Lock a file while the body runs.

    Args:
        how: A further flag of `flock`: LOCK_NB raises BlockingIOError instead of
            waiting.
    """
    fd = open_file(path, os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | how)
        yield
    finally:
        os.close(fd)


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
    def place(
        self,
        command: str,
        provider: str,
        *,
        box: str = "",
        blocked: Callable[[], None] = lambda: None,
    ) -> Iterator[WaitingRun]:
        """
        Take the last place in the queue while the body runs.

        Args:
            box: The id of the box that the run uses, "" if it may use any.

            blocked: Called again and again while `frozen` lets no run take a place. A
                signal ends this wait.

        Raises:
            StateError: The ticket cannot be written.
        """
        with contextlib.ExitStack() as leave:
            while (run := self._take(command, provider, box, leave)) is None:
                blocked()
                time.sleep(PAUSE)
            yield run

    def runs(self, box: str = "") -> list[WaitingRun]:
        """
        Return the runs that wait, the first one first.

        The tickets of processes that have ended are removed.

        Args:
            box: Leave out the runs that are known to use another box than this one.
        """
        if not self.directory.is_dir():
            return []
        with disk_errors(self.directory), locked(self.directory / "lock"):
            return self._tickets(box)

    @contextmanager
    def frozen(self, box: str = "") -> Iterator[list[WaitingRun]]:
        """Yield the `runs`; while the body runs, no other one takes a place."""
        with contextlib.ExitStack() as leave:
            with disk_errors(self.directory):
                private_dir(self.directory)
                leave.enter_context(locked(self.directory / "lock"))
                running = self._tickets(box)
            yield running

    def ahead_of(self, run: WaitingRun) -> list[WaitingRun]:
        """Return the runs that are served before *run*."""
        return [other for other in self.runs() if other.number < run.number]

    def _take(
        self, command: str, provider: str, box: str, leave: contextlib.ExitStack
    ) -> WaitingRun | None:
        """Take the last place until *leave* ends; return None if it is not possible."""
        # A signal between the ticket and its callbacks would leave it behind.
        with disk_errors(self.directory), signals_delayed():
            private_dir(self.directory)
            with contextlib.ExitStack() as held:
                try:
                    held.enter_context(locked(self.directory / "lock", fcntl.LOCK_NB))
                except BlockingIOError:
                    return None
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
                os.write(fd, json.dumps({**asdict(run), "box": box}).encode())
        return run

    def _tickets(self, box: str = "") -> list[WaitingRun]:
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
                run, used = _read(fd, int(path.stem))
                if not box or used in ("", box):
                    found.append(run)
            finally:
                os.close(fd)
        return sorted(found, key=lambda run: run.number)


def _read(fd: int, number: int) -> tuple[WaitingRun, str]:
    """
    Return the run of an open ticket, and the id of its box.

    A field that another version lacks is empty.
    """
    try:
        values: Any = json.loads(os.read(fd, LONGEST))
        run = WaitingRun(
            number=number,
            pid=int(values.get("pid", 0)),
            command=str(values.get("command", "")),
            since=float(values.get("since", 0.0)),
            provider=str(values.get("provider", "")),
        )
        return run, str(values.get("box", ""))
    except (ValueError, TypeError, AttributeError):
        return WaitingRun(number, 0, "", os.fstat(fd).st_mtime, ""), ""
