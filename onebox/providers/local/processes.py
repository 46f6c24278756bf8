"""Find the processes of a box, and end all of them."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from ...agent import processes
from ...agent.processes import Process
from .layout import MARK

# Between SIGTERM and SIGKILL: enough for a job to write a last line.
GRACE_SECONDS = 2.0

_HAS_PROC = Path("/proc/self").exists()


def descendants(root: int) -> set[int]:
    """Return the running processes that descend from *root*."""
    listed = processes.all_processes() if _HAS_PROC else _listed_by_ps()
    return {process.pid for process in processes.descendants(root, listed)}


def marked(box: str) -> set[int]:
    """Return the processes with this box's id in their environment, except our own."""
    mark = f"{MARK}={box}"
    if _HAS_PROC:
        return set(processes.marked(mark))
    # The ps of BSD and macOS shows the environment to the owner of a process.
    listing = _ps("-axEww", "-o", "pid=,command=")
    found = {
        int(line.split(None, 1)[0])
        for line in listing.splitlines()
        if mark.encode() in line.split()[1:]
    }
    return found - {os.getpid()}


def end(
    find: Callable[[], set[int]],
    *,
    grace: float = GRACE_SECONDS,
    each_round: Callable[[], None] = lambda: None,
) -> None:
    """
    End all processes that *find* returns: SIGTERM, wait for *grace*, then SIGKILL.

    *each_round* is called while waiting, for example to reap children.
    """
    deadline = time.monotonic() + grace
    terminated: set[int] = set()
    pause = 0.002
    empty_rounds = 0
    # A list of processes is no snapshot: it can miss a process that gets another
    # parent meanwhile. So two lists in a row must be empty.
    while empty_rounds < 2:
        found = find()
        empty_rounds = 0 if found else empty_rounds + 1
        if time.monotonic() < deadline:
            processes.terminate(found - terminated)
            terminated |= found
        else:
            # All are frozen first: in a simulated power cut no process may see another
            # one end.
            processes.send(signal.SIGSTOP, found)
            processes.send(signal.SIGKILL, found)
        time.sleep(pause)
        pause = min(pause * 1.5, 0.02)
        each_round()


def reap() -> dict[int, int]:
    """Reap all children that have ended; return their wait status by pid."""
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
    """Signal a process, unless it has ended or belongs to another user."""
    processes.send(number, [pid])


def _listed_by_ps() -> list[Process]:
    rows = [line.split() for line in _ps("-axo", "pid=,ppid=,stat=").splitlines()]
    return [Process(int(row[0]), int(row[1]), 0, row[2][:1] == b"Z") for row in rows]


def _ps(*arguments: str) -> bytes:
    return subprocess.run(["ps", *arguments], capture_output=True, check=False).stdout
