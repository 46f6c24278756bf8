"""Read which process holds the lock of a box."""

from __future__ import annotations

import contextlib
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

# A lock file has one line. More than this is not one of ours.
LONGEST = 1 << 16
_LINE = re.compile(r'"(?P<command>.*)" since [\d:]+ \(pid (?P<pid>\d+)\)', re.DOTALL)
_NOTEBOOK = re.compile(r"\bnotebook\b")


@dataclass(frozen=True)
class LockHolder:
    """
    The process that holds the lock of a box.

    Attributes:
        pid: Its number.

        command: Its command line.

        since: When it locked the box, in epoch seconds by this machine's clock.
    """

    pid: int
    command: str
    since: float

    @property
    def is_notebook(self) -> bool:
        """Return whether its command line runs a notebook, or prepares one."""
        return _NOTEBOOK.search(self.command) is not None


def text(command: str) -> str:
    """Return what this process writes into the file that it has locked."""
    return f'"{command}" since {time.strftime("%H:%M:%S")} (pid {os.getpid()})'


def read(path: Path) -> LockHolder | None:
    """Return the process that holds the lock file *path*, None if none does."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        found = _LINE.fullmatch(os.read(fd, LONGEST).decode("utf-8", "replace"))
        if found is None:
            return None
        since = os.fstat(fd).st_mtime
        holder = LockHolder(int(found["pid"]), found["command"], since)
        # The file keeps the line of a process that has unlocked it or ended.
        return holder if _has_open(holder.pid, fd) else None
    except OSError:
        return None
    finally:
        os.close(fd)


def _has_open(pid: int, fd: int) -> bool:
    """
    Return whether a process has the lock file open, as it does while it holds the lock.

    The lock itself is not tried, because a command that locks at this moment would then
    find it taken. On a system without /proc, a process that exists counts.
    """
    if not Path("/proc/self/fd").is_dir():
        return _lives(pid)
    lock, own = os.fstat(fd), str(fd) if pid == os.getpid() else ""
    with contextlib.suppress(OSError):
        for file in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if file.name != own and os.path.samestat(file.stat(), lock):
                    return True
    return False


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True
