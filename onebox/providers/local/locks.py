"""Take the lock of a box, which a process holds while it prepares, runs or saves it."""

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
    """
    Hold the lock at *path* during a `with` block; yield the lock's descriptor.

    Yield None if another process holds the lock, or if the box has been removed.
    """
    lock = None
    try:
        # Signals are delayed here. Otherwise a signal could raise an exception after
        # the lock is taken and before its descriptor is stored, and the box would stay
        # locked until this process ends.
        with signals_delayed():
            lock = take_lock(path)
        yield lock
    finally:
        if lock is not None:
            os.close(lock)


def take_lock(path: Path) -> int | None:
    """
    Take the lock at *path*, and return the descriptor that holds it.

    Return None if another process holds the lock, or if the box has been removed.
    """
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except FileNotFoundError:
        # The directory of the box does not exist any more: another command has just
        # removed it.
        return None
    try:
        _lock(handle)
        # Another process may have removed or replaced the file between the open and the
        # lock. Then the lock is on a file that is not at *path*, and is worth nothing.
        same = os.path.samestat(os.fstat(handle), path.stat())
    except (BlockingIOError, FileNotFoundError):
        same = False
    if same:
        return handle
    os.close(handle)
    return None


def _lock(handle: int) -> None:
    """
    Lock a file. Raises BlockingIOError if another process has locked it exclusively.
    """
    while True:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        # `is_locked` in another process takes a shared lock for a moment. If a shared
        # lock is possible now, only such a check was in the way, and the loop tries
        # again. Otherwise this call raises BlockingIOError.
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(handle, fcntl.LOCK_UN)
        time.sleep(0.001)
