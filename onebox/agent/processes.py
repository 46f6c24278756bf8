"""Which processes there are, who started them, and how to end them."""

from __future__ import annotations

import os
import signal
import time
from typing import Dict, Iterable, List, NamedTuple, Set

from .box import read

# Becoming another program takes less than this, also on a box under load.
EXEC = 0.2


class Process(NamedTuple):
    """A process as /proc shows it; *memory* is what of it is in RAM, in bytes."""

    pid: int
    parent: int
    memory: int


def running() -> List[Process]:
    """Return all processes but zombies; none where there is no /proc."""
    page = os.sysconf("SC_PAGE_SIZE")
    found = []
    for pid in _pids():
        stat = read("/proc/%d/stat" % pid)
        # The name, in parentheses, may hold blanks and parentheses.
        fields = stat[stat.rfind(b")") + 2 :].split()
        if len(fields) <= 21:
            continue
        # Of one whose first thread has ended, others may run on.
        if fields[0] not in (b"Z", b"X") or int(fields[17]) > 1:
            found.append(Process(pid, int(fields[1]), int(fields[21]) * page))
    return found


def below(ancestor: int, among: Iterable[Process]) -> List[Process]:
    """Return those that *ancestor* has started, directly or not."""
    children: Dict[int, List[Process]] = {}
    for process in among:
        children.setdefault(process.parent, []).append(process)
    found: List[Process] = []
    todo = [ancestor]
    while todo:
        born = children.pop(todo.pop(), [])
        found += born
        todo += [process.pid for process in born]
    return found


def marked(*marks: str) -> List[int]:
    """Return who carries all these `NAME=value` in its environment, but not us."""
    wanted = {mark.encode("utf-8", "surrogateescape") for mark in marks}
    own = _ancestors(os.getpid())
    return [
        pid
        for pid in _pids()
        if pid not in own and wanted <= set(_environment(pid).split(b"\0"))
    ]


def command(pid: int) -> str:
    """Return what a process was started with, shortened; its pid if it is gone."""
    words = read("/proc/%d/cmdline" % pid) or read("/proc/%d/comm" % pid)
    text = words.replace(b"\0", b" ").decode("utf-8", "replace").strip()
    if len(text) > 80:
        text = text[:79] + "…"
    return text or "process %d" % abs(pid)


def name(pid: int) -> str:
    """Return the name that the kernel knows a process by; nothing if it is gone."""
    return read("/proc/%d/comm" % pid).decode("utf-8", "replace").strip()


def send(signum: int, pids: Iterable[int]) -> None:
    """Send a signal to processes (or groups, if negative) that may be gone."""
    for pid in pids:
        try:
            os.kill(pid, signum)
        except (ProcessLookupError, PermissionError):
            continue


def group(pid: int) -> List[int]:
    """Return a process group as something to signal; nothing if it is empty."""
    try:
        os.kill(-pid, 0)
    except (ProcessLookupError, PermissionError):
        return []
    return [-pid]


def ask_to_end(pids: Iterable[int]) -> None:
    """Send TERM, and CONT so that a stopped process hears it."""
    pids = list(pids)
    send(signal.SIGTERM, pids)
    send(signal.SIGCONT, pids)


def adjust_oom_score(score: int) -> None:
    """Say who should go first when memory runs out; needs root to go down."""
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write(str(score))
    except OSError:
        return


def _pids() -> List[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []


def _environment(pid: int) -> bytes:
    """Return what a process was started with; amid an exec there is nothing yet."""
    end = time.monotonic() + EXEC
    while True:
        told = read("/proc/%d/environ" % pid)
        # What is gone, or the kernel's own, has no program.
        if told or not os.path.exists("/proc/%d/exe" % pid):
            return told
        # With an argv it is past the exec, and may have been given nothing.
        if read("/proc/%d/cmdline" % pid) or time.monotonic() > end:
            return read("/proc/%d/environ" % pid)
        time.sleep(0.001)


def _ancestors(pid: int) -> Set[int]:
    parents = {process.pid: process.parent for process in running()}
    found: Set[int] = set()
    while pid and pid not in found:
        found.add(pid)
        pid = parents.get(pid, 0)
    return found
