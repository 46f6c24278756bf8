"""The lock of a box, held while a process prepares, runs or saves the box."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from onebox.signals import signals_delayed


@contextlib.contextmanager
def locked(path: Path) -> Iterator[int | None]:
    """Hold the lock in a `with` block; yield None if another process holds it."""
    lock = None
    try:
        # Signals are held back: an exception between taking the lock and storing its
        # descriptor would leave it locked until this process ends.
        with signals_delayed():
            lock = take_lock(path)
        yield lock
    finally:
        if lock is not None:
            os.close(lock)


def take_lock(path: Path) -> int | None:
    """Return a descriptor that holds the lock, None if another process holds it."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except FileNotFoundError:
        # The box's directory was just removed.
        return None
    try:
        _lock(handle)
        # The file may have been removed, or replaced, before it was locked.
        same = os.path.samestat(os.fstat(handle), path.stat())
    except (BlockingIOError, FileNotFoundError):
        same = False
    if same:
        return handle
    os.close(handle)
    return None


def _lock(handle: int) -> None:
    """Lock a file. Raises `BlockingIOError` if another process holds the lock."""
    while True:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        # If a shared lock is possible, only an `is_locked` of another process was in
        # the way: try again.
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(handle, fcntl.LOCK_UN)
        time.sleep(0.001)
