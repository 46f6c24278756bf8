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

_START_SECONDS = 0.2

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
    parents, ended = _parents()
    for pid, parent in parents.items():
        children.setdefault(parent, []).append(pid)
    found: set[int] = set()
    waiting = [root]
    while waiting:
        for pid in children.get(waiting.pop(), []):
            if pid not in found:
                found.add(pid)
                waiting.append(pid)
    # One that has just ended still counts as a parent: its children may have
    # been listed before they were handed on.
    return found - ended


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
                environment = _environment(entry)
            except OSError:
                continue
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
    looks_in_vain = 0
    # A listing of processes is no snapshot: it can miss one that gets another
    # parent meanwhile. So it takes two that find nothing.
    while looks_in_vain < 2:
        found = find()
        looks_in_vain = 0 if found else looks_in_vain + 1
        if time.monotonic() < deadline:
            for pid in found - asked:
                send(pid, signal.SIGTERM)
                # A stopped process acts on SIGTERM only when it goes on.
                send(pid, signal.SIGCONT)
            asked |= found
        else:
            # Frozen first: in a power cut nobody sees the others end.
            for number in (signal.SIGSTOP, signal.SIGKILL):
                for pid in found:
                    send(pid, number)
        time.sleep(pause)
        pause = min(pause * 1.5, 0.02)
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


def _environment(process: Path) -> bytes:
    """
    Read a process's environment, that of one just being started as soon as it is.

    Between two programs a process has neither environment nor command line, for
    some milliseconds on a loaded machine.
    """
    until = time.monotonic() + _START_SECONDS
    while True:
        environment = (process / "environ").read_bytes()
        # A zombie, and a thread of the kernel's, has no memory either.
        if environment or (process / "statm").read_bytes().startswith(b"0 "):
            return environment
        if (process / "cmdline").read_bytes() or time.monotonic() > until:
            return (process / "environ").read_bytes()
        time.sleep(0.001)


def _parents() -> tuple[dict[int, int], set[int]]:
    """Return everybody's parent, and who has ended but not been reaped yet."""
    if not _PROC.joinpath("self").exists():
        rows = [line.split() for line in _ps("-axo", "pid=,ppid=,stat=").splitlines()]
        return (
            {int(row[0]): int(row[1]) for row in rows},
            {int(row[0]) for row in rows if row[2][:1] == b"Z"},
        )
    parents, ended = {}, set()
    for entry in os.listdir(_PROC):  # noqa: PTH208 - a third of iterdir's time
        if entry.isdigit():
            try:
                status = (_PROC / entry / "stat").read_bytes()
            except OSError:
                continue
            # The name, in parentheses, may hold anything: read behind it.
            state, parent = status[status.rindex(b")") + 2 :].split(None, 2)[:2]
            parents[int(entry)] = int(parent)
            if state in (b"Z", b"X"):
                ended.add(int(entry))
    return parents, ended


def _ps(*arguments: str) -> bytes:
    done = subprocess.run(["ps", *arguments], capture_output=True, check=False)
    return done.stdout
