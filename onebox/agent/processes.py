"""
List processes and their ancestry from /proc, and signal them.

The local provider uses this module too, for the processes of a local box.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Dict, Iterable, List, NamedTuple, Set

from .box import read

# A process finishes an `exec` within this many seconds, even on a loaded box.
EXEC_SECONDS = 0.2
SET_CHILD_SUBREAPER = 36


class Process(NamedTuple):
    """
    A process as /proc shows it.

    *memory* is its resident memory in bytes. *ended* is true for a zombie: it
    does not run any more, but its parent has not reaped it. *cpu* is the CPU time in
    seconds that it has used, and *reaped* that of its children that were reaped.
    """

    pid: int
    parent: int
    memory: int
    ended: bool
    cpu: float = 0.0
    reaped: float = 0.0


def all_processes() -> List[Process]:
    """Return all processes, including zombies; [] on a system without /proc."""
    page, ticks = os.sysconf("SC_PAGE_SIZE"), float(os.sysconf("SC_CLK_TCK"))
    found = []
    for pid in _pids():
        fields = _stat(pid)
        if len(fields) <= 21:
            continue
        # A process whose first thread has ended looks like a zombie, but its other
        # threads may still run.
        ended = fields[0] in (b"Z", b"X") and int(fields[17]) <= 1
        user, system, reaped_user, reaped_system = map(int, fields[11:15])
        found.append(
            Process(
                pid,
                int(fields[1]),
                int(fields[21]) * page,
                ended,
                (user + system) / ticks,
                (reaped_user + reaped_system) / ticks,
            )
        )
    return found


def descendants(root: int, processes: Iterable[Process]) -> List[Process]:
    """
    Return the running processes among *processes* that descend from *root*.

    Zombies are not returned, but their children are, because a child may have been
    listed before the kernel gave it another parent.
    """
    children: Dict[int, List[Process]] = {}
    for process in processes:
        children.setdefault(process.parent, []).append(process)
    found: List[Process] = []
    parents = [root]
    while parents:
        below = children.pop(parents.pop(), [])
        found += [process for process in below if not process.ended]
        parents += [process.pid for process in below]
    return found


def cpu_seconds(root: int, processes: Iterable[Process]) -> float:
    """
    Return the CPU time in seconds of all processes that have descended from *root*.

    Descendants that have ended count if they were reaped. Zombies do not count, so the
    result may go back for a moment.
    """
    processes = list(processes)
    reaped = sum(process.reaped for process in processes if process.pid == root)
    family = descendants(root, processes)
    return reaped + sum(process.cpu + process.reaped for process in family)


def with_variables(*variables: str) -> List[int]:
    """
    Return the pids of the processes whose environment contains all *variables*.

    A variable is given as `NAME=value`. The calling process and its ancestors are left
    out.
    """
    # A search is faster than a list of all variables.
    required = [
        b"\0%s\0" % each.encode("utf-8", "surrogateescape") for each in variables
    ]
    own = _ancestors(os.getpid())
    found = []
    for pid in _pids():
        if pid not in own:
            environment = b"\0%s\0" % _environment(pid)
            if all(each in environment for each in required):
                found.append(pid)
    return found


def command(pid: int) -> str:
    """
    Return the command line of a process, shortened to at most 80 characters.

    Return "process <pid>" if the process has ended.
    """
    words = read("/proc/%d/cmdline" % pid) or read("/proc/%d/comm" % pid)
    text = words.replace(b"\0", b" ").decode("utf-8", "replace").strip()
    if len(text) > 80:
        text = text[:79] + "…"
    return text or "process %d" % abs(pid)


def name(pid: int) -> str:
    """Return the kernel's name of a process, "" if it has ended."""
    return read("/proc/%d/comm" % pid).decode("utf-8", "replace").strip()


def variable(pid: int, name: bytes) -> bytes:
    """Return a variable of a process's environment, b"" if it has none such."""
    for entry in _environment(pid).split(b"\0"):
        if entry.startswith(name + b"="):
            return entry[len(name) + 1 :]
    return b""


def send(signum: int, pids: Iterable[int]) -> None:
    """
    Send a signal to the processes *pids*; a negative number means a process group.

    Processes that have ended or that may not be signalled are ignored.
    """
    for pid in pids:
        try:
            os.kill(pid, signum)
        except (ProcessLookupError, PermissionError):
            continue


def group(pid: int) -> List[int]:
    """
    Return the list of pids with which `send` signals the process group of *pid*.

    *pid* is the leader of the group. The list is empty if the group has no process that
    may be signalled.
    """
    try:
        os.kill(-pid, 0)
    except (ProcessLookupError, PermissionError):
        return []
    return [-pid]


def terminate(pids: Iterable[int]) -> None:
    """Send SIGTERM to processes, and SIGCONT so that a stopped process handles it."""
    pids = list(pids)
    send(signal.SIGTERM, pids)
    send(signal.SIGCONT, pids)


def wake_on_signals() -> int:
    """
    Turn SIGCHLD and SIGTERM into bytes in a pipe; return the end to read from.

    SIGINT and SIGHUP are ignored from now on.
    """
    wake, write_end = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    for signum in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(signum, lambda *_: None)
    for signum in (signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    return wake


def become_subreaper() -> bool:
    """
    Become the parent of all orphaned descendants.

    Return False if the system does not support that.
    """
    if sys.platform != "linux":
        return False
    try:
        # ctypes is imported here, because it takes long to load and is missing on
        # some systems.
        import ctypes

        return bool(ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)
    except (ImportError, OSError, AttributeError):
        return False


def adjust_oom_score(score: int, pid: int = 0) -> None:
    """
    Set how early the kernel kills a process when memory runs out.

    A process with a higher *score* is killed earlier. *pid* 0 is this process.
    """
    try:
        with open("/proc/%s/oom_score_adj" % (pid or "self"), "w") as file:
            file.write(str(score))
    except OSError:
        # Only root may lower the score.
        return


def _pids() -> List[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []


def _stat(pid: int) -> List[bytes]:
    """
    Return the fields of /proc/<pid>/stat, beginning with the state of the process.

    Return [] if there is no such file.
    """
    stat = read("/proc/%d/stat" % pid)
    # The process's name is in parentheses and may itself contain blanks and
    # parentheses. The last ")" ends it.
    return stat[stat.rfind(b")") + 2 :].split()


def _environment(pid: int) -> bytes:
    """
    Return the environment of a process, or b"" if it has none.

    If the process is in an `exec`, wait up to `EXEC_SECONDS` for the end of the `exec`.
    """
    end = time.monotonic() + EXEC_SECONDS
    while True:
        environment = read("/proc/%d/environ" % pid)
        # A kernel thread and a process that has ended have no executable.
        if environment or not os.path.exists("/proc/%d/exe" % pid):
            return environment
        # A process that has a command line has finished its exec. Read
        # its environment again, and accept an empty one.
        if read("/proc/%d/cmdline" % pid) or time.monotonic() > end:
            return read("/proc/%d/environ" % pid)
        time.sleep(0.001)


def _ancestors(pid: int) -> Set[int]:
    """Return *pid* and the pids of its ancestors."""
    found: Set[int] = set()
    while pid and pid not in found:
        found.add(pid)
        fields = _stat(pid)
        pid = int(fields[1]) if len(fields) > 1 else 0
    return found
