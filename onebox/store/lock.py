"""A lock on one box, held by an open descriptor until the process ends."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from onebox.errors import Busy
from onebox.signals import signals_delayed
from onebox.store.atomic_files import disk_errors, private_dir

# The locks of this process. One task may use several stores of the same box
# (`run(c)`, then `run(c, name="main")`), and they must not block each other.
_HELD: dict[Path, int] = {}


def acquire(directory: Path, command: str) -> bool:
    """
    Lock a box's directory for this process; return False if it holds the lock already.

    Args:
        command: The command line, for the message of a process that finds it locked.

    Raises:
        Busy: Another process holds the lock; the message names it.

        StateError: The lock file cannot be written.
    """
    if directory in _HELD:
        return False
    # A signal between the lock and its entry in _HELD would leak the descriptor.
    with disk_errors(directory / "lock"), signals_delayed():
        private_dir(directory)
        fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _lock(fd, command)
        except BaseException:
            os.close(fd)
            raise
        _HELD[directory] = fd
    return True


def release(directory: Path) -> None:
    """Unlock a box's directory, if this process holds the lock."""
    fd = _HELD.pop(directory, None)
    if fd is not None:
        os.close(fd)


def _lock(fd: int, command: str) -> None:
    """Lock a file and write the holder into it. Raises Busy, or OSError."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(fd, 500).decode("utf-8", "replace") or "unknown"
        raise Busy(
            f"busy: {holder}",
            next="wait for it; `inv status`, `inv logs`, `inv cancel` work now",
        ) from None
    since = time.strftime("%H:%M:%S")
    text = f'pid {os.getpid()} "{command}" since {since}'
    os.truncate(fd, 0)
    os.pwrite(fd, text.encode("utf-8", "replace"), 0)
