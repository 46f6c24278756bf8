"""Find the processes of a box, and end every one of them."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from .layout import MARK

# Between SIGTERM and SIGKILL: time enough for a job to write a last line.
GRACE_SECONDS = 2.0

_PROC = Path("/proc")
_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> bool:
    """Become the parent of whatever is orphaned below us; say whether we could."""
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


def descendants(root: int) -> set[int]:
    """Return the living processes below *root*, without itself."""
    children: dict[int, list[int]] = {}
    for pid, parent in _parents().items():
        children.setdefault(parent, []).append(pid)
    found: set[int] = set()
    waiting = [root]
    while waiting:
        for pid in children.get(waiting.pop(), []):
            if pid not in found:
                found.add(pid)
                waiting.append(pid)
    return found


def marked(box: str) -> set[int]:
    """Return the living processes that carry the mark of this box, but not us."""
    mark = f"{MARK}={box}".encode()
    if not _PROC.joinpath("self").exists():
        # BSD's ps, so also macOS's, shows the environment to the owner.
        listing = _ps("-axEww", "-o", "pid=,command=")
        found = {
            int(line.split(None, 1)[0])
            for line in listing.splitlines()
            if mark in line.split()[1:]
        }
        return found - {os.getpid()}
    found = set()
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            try:
                environment = (entry / "environ").read_bytes()
            except OSError:
                continue
            # A zombie's environment is empty.
            if mark in environment.split(b"\0"):
                found.add(int(entry.name))
    return found - {os.getpid()}


def end(
    find: Callable[[], set[int]],
    *,
    grace: float = GRACE_SECONDS,
    each_round: Callable[[], None] = lambda: None,
) -> None:
    """
    End all that *find* finds: ask, wait, then kill until nothing is left.

    *each_round* is called while waiting (to reap children).
    """
    deadline = time.monotonic() + grace
    asked: set[int] = set()
    pause = 0.002
    while found := find():
        if time.monotonic() < deadline:
            for pid in found - asked:
                send(pid, signal.SIGTERM)
                # A stopped process acts on SIGTERM only when it goes on.
                send(pid, signal.SIGCONT)
            asked |= found
        else:
            for pid in found:
                send(pid, signal.SIGKILL)
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)
        each_round()


def reap() -> dict[int, int]:
    """Collect every child that has ended: pid to wait status."""
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended[pid] = status


def send(pid: int, number: int) -> None:
    """Signal a process, which may have ended by now or not be ours."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return


def _parents() -> dict[int, int]:
    if not _PROC.joinpath("self").exists():
        rows = [line.split() for line in _ps("-axo", "pid=,ppid=,stat=").splitlines()]
        return {int(row[0]): int(row[1]) for row in rows if row[2][:1] != b"Z"}
    parents = {}
    for entry in os.listdir(_PROC):  # noqa: PTH208 - a third of iterdir's time
        if entry.isdigit():
            try:
                status = (_PROC / entry / "stat").read_bytes()
            except OSError:
                continue
            # The name, in parentheses, may hold anything: read behind it.
            state, parent = status[status.rindex(b")") + 2 :].split(None, 2)[:2]
            if state not in (b"Z", b"X"):
                parents[int(entry)] = int(parent)
    return parents


def _ps(*arguments: str) -> bytes:
    done = subprocess.run(["ps", *arguments], capture_output=True, check=False)
    return done.stdout
