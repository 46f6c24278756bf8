"""
Keep the state of one box on this machine: its record, its journal and its lock.

The record is a cache of the provider's tags. The owner id and the ssh key are not part
of the state. They are kept in the configuration directory, so that every box can still
be identified if the state is lost.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from onebox.errors import Busy, StateError
from onebox.signals import signals_delayed
from onebox.store import lock_holder
from onebox.store.atomic_files import (
    disk_errors,
    open_file,
    private_dir,
    write_atomically,
)
from onebox.store.journal import Intent, Journal, Outcome
from onebox.store.lock_holder import LockHolder
from onebox.store.record import Record, is_newer, is_valid
from onebox.store.run_queue import RunQueue
from onebox.store.sessions import Sessions

# The locks that this process holds, by directory: the descriptor, and the thread that
# has locked. All stores of a thread share them, because one task may use several stores
# of the same box (`run(c)`, then `run(c, name="main")`), which must not block each
# other. Two threads block each other as two processes do.
_HELD: dict[Path, tuple[int, int]] = {}


class BoxStore:
    """
    The state of the box that has one name in one project, kept in one directory.

    Args:
        warn: Called with a sentence when the record turns out to be damaged.
    """

    def __init__(
        self, directory: Path, warn: Callable[[str], None] = lambda text: None
    ) -> None:
        self.directory = directory
        self._path = directory / "state.json"
        self._journal = Journal(directory / "journal")
        self._warn = warn

    @property
    def record(self) -> Record:
        """
        Return the record as it is on the disk now.

        If the file is missing or unusable, an empty record is returned. A damaged file
        is moved aside. A file of a newer version is left alone: commands that only read
        work without it, and `update` refuses to replace it.
        """
        document = self._read()
        return Record() if is_newer(document) else Record.parse(document)

    def update(self, **changes: Any) -> Record:
        """
        Change the record and return it; it is on disk when this returns.

        Raises:
            StateError: A newer version of onebox wrote the record, or it cannot be
                written.
        """
        self._check_format()
        record = replace(self.record, **changes)
        with disk_errors(self._path):
            private_dir(self.directory)
            data = json.dumps(record.document(), indent=1).encode()
            write_atomically(self._path, data)
        return record

    def forget(self) -> None:
        """Empty the record; remove the journal unless an intent in it is open."""
        self._journal.clear()
        self.update(**asdict(Record()) | {"unknown": {}})

    def forget_box(self, box_id: str) -> None:
        """Do what `forget` does, but only if the recorded box has the id *box_id*."""
        if self.record.box == box_id:
            self.forget()

    def intent(self, action: str, **values: Any) -> AbstractContextManager[Outcome]:
        """Journal an action before the body runs; see `Journal.intent`."""
        return self._journal.intent(action, **values)

    def open_intents(self) -> list[Intent]:
        """Return the actions that have no result yet, oldest first."""
        return self._journal.open_intents()

    def close_intent(self, intent: Intent, result: str) -> None:
        """Journal the result of an open intent."""
        self._journal.close(intent, result)

    def lock(self, command: str, title: str = "the box") -> None:
        """
        Lock this box for this thread, until the process ends or `unlock` is called.

        Args:
            command: The command line. A process that finds the box locked shows this
                text in its message.

            title: The project and the name of the box, for that message.

        Raises:
            Busy: Another process or thread holds the lock; the message names it.

            StateError: A newer version of onebox wrote the state.
        """
        self._check_format()
        if self.locked:
            return
        # Signals are delayed, because one that arrives between the lock and its entry
        # in _HELD would leak the descriptor.
        with disk_errors(self.directory / "lock"), signals_delayed():
            private_dir(self.directory)
            fd = open_file(self.directory / "lock", os.O_RDWR)
            try:
                _lock(fd, command, title)
            except BaseException:
                os.close(fd)
                raise
            _HELD[self.directory] = fd, threading.get_ident()
        # Remove the drafts of commands that were killed while they wrote the record.
        for draft in self.directory.glob(".*.json-*"):
            draft.unlink(missing_ok=True)

    def is_free(self) -> bool:
        """
        Return whether no other process or thread holds the lock.

        The lock is tried, so that a command which locks at this moment may find it
        taken; `holder` has no such effect, but relies on what the process has written.
        """
        if self.locked:
            return True
        try:
            fd = os.open(self.directory / "lock", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return True
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return False
        finally:
            os.close(fd)
        return True

    @property
    def lock_descriptor(self) -> int:
        """
        Return the descriptor of the lock that this thread holds.

        A process that inherits it holds the lock too, until it ends; see `take_over`.
        """
        return _HELD[self.directory][0]

    def take_over(self, descriptor: int, command: str) -> None:
        """
        Hold the lock that this process has inherited from the one that started it.

        Args:
            descriptor: What `lock_descriptor` returned there.

            command: See `lock`.
        """
        with disk_errors(self.directory / "lock"):
            os.set_inheritable(descriptor, False)
            _HELD[self.directory] = descriptor, threading.get_ident()
            _write_holder(descriptor, command)

    @property
    def locked(self) -> bool:
        """Return whether this thread holds the lock."""
        return self.directory in _held_by_this_thread()

    def holder(self) -> LockHolder | None:
        """Return the process that holds the lock, None if none does."""
        return lock_holder.read(self.directory / "lock")

    @property
    def queue(self) -> RunQueue:
        """Return the queue of the runs that wait for this box."""
        return RunQueue(self.directory / "queue")

    @property
    def sessions(self) -> Sessions:
        """Return the user's sessions on this box."""
        return Sessions(self.directory)

    def unlock(self) -> None:
        """Unlock this box for other processes and threads."""
        _unlock(self.directory)

    def _read(self) -> dict[str, Any]:
        """Return the document in state.json; {} if the file is missing or unusable."""
        with disk_errors(self._path):
            try:
                document = json.loads(self._path.read_bytes())
            except FileNotFoundError:
                return {}
            except (ValueError, RecursionError):
                document = None
            if is_valid(document):
                return dict(document)
            self._move_aside()
        return {}

    def _check_format(self) -> None:
        if is_newer(self._read()):
            raise StateError(
                f"{self._path} was written by a newer onebox",
                next="update onebox; `inv status` and `inv cleanup` work without it",
            )

    def _move_aside(self) -> None:
        for n in range(1, 1000):
            target = self._path.with_name(f"{self._path.name}.corrupt-{n}")
            if target.exists():
                continue
            # Another process may have moved the file already.
            with contextlib.suppress(FileNotFoundError):
                self._path.replace(target)
                self._warn(
                    f"{self._path} was damaged: it is kept as {target.name}, and "
                    "the box is looked up by its tags"
                )
            return


@contextlib.contextmanager
def locks_released() -> Iterator[None]:
    """After the body, unlock the boxes that it has locked in this thread."""
    before = _held_by_this_thread()
    try:
        yield
    finally:
        for directory in _held_by_this_thread() - before:
            _unlock(directory)


def box_folders(project: Path) -> list[Path]:
    """
    Return the directories of the boxes of one project, by the name of the box.

    The state directory of the *project* also has files, such as the rates of pushes.
    """
    with contextlib.suppress(OSError):
        return sorted(path for path in project.iterdir() if path.is_dir())
    return []


def _held_by_this_thread() -> set[Path]:
    return {
        directory
        for directory, (_, thread) in list(_HELD.items())
        if thread == threading.get_ident()
    }


def _unlock(directory: Path) -> None:
    held = _HELD.pop(directory, None)
    if held is not None:
        os.close(held[0])


def _lock(fd: int, command: str, title: str) -> None:
    """
    Lock a file, and write this process and its *command* into the file.

    Raises:
        Busy: Another process holds the lock.

        OSError: The file cannot be locked, read or written.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(fd, 500).decode("utf-8", "replace") or "unknown"
        raise Busy(f"{title} is busy: {holder}") from None
    _write_holder(fd, command)


def _write_holder(fd: int, command: str) -> None:
    os.truncate(fd, 0)
    os.pwrite(fd, lock_holder.text(command).encode("utf-8", "replace"), 0)
