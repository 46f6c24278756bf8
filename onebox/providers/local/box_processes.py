"""Start the two main processes of a box, and find and end all its processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ...agent import processes
from ...agent.processes import Process
from .layout import MARK

# This is the time between SIGTERM and SIGKILL, in seconds. In this time a job can write
# a last line.
GRACE_SECONDS = 2.0

_HAS_PROC = Path("/proc/self").exists()

_ONEBOX = Path(__file__).resolve().parent.parent.parent

# The parent packages are replaced with empty modules, because their own `__init__`
# files would import the rest of onebox and the libraries that it needs.
_CODE = """import sys
sys.path += sys.argv[2].split(":")
for name, folder in (("onebox", {onebox!r}), ("onebox.providers", {providers!r})):
    sys.modules[name] = type(sys)(name)
    sys.modules[name].__path__ = [folder]
from onebox.providers.local.{module} import main
main(sys.argv[3:])
"""


def command(module: str, path: Sequence[str], *arguments: str) -> list[str]:
    """
    Return the command that calls `main(arguments)` of a module in this package.

    The command imports only this module and the modules that it needs.

    Args:
        path: The folders of the libraries that the module needs, which are added to
            `sys.path`.
    """
    code = _CODE.format(
        module=module, onebox=str(_ONEBOX), providers=str(_ONEBOX / "providers")
    )
    # With -I and -S, the user's PYTHON* variables and .pth files have no effect.
    options = ["-I", "-S", "-c", code]
    return [sys.executable, *options, module, ":".join(path), *arguments]


def descendants(root: int) -> set[int]:
    """Return the pids of the running processes that descend from the process *root*."""
    listed = processes.all_processes() if _HAS_PROC else _listed_by_ps()
    return {process.pid for process in processes.descendants(root, listed)}


def marked(box: str) -> set[int]:
    """
    Return the pids of the processes with this box's id in their environment.

    The calling process is left out. On a system with /proc, its ancestors are left out
    too.
    """
    mark = f"{MARK}={box}"
    if _HAS_PROC:
        return set(processes.with_variables(mark))
    # The `ps` of BSD and macOS shows the environment of a process to its owner.
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
    each_round: Callable[[], object] = lambda: None,
) -> None:
    """
    End all processes that *find* returns: SIGTERM, and SIGKILL after *grace* seconds.

    *find* is called repeatedly, until two calls in a row return no process.
    *each_round* is called after each call of *find*, for example to reap children.
    """
    deadline = time.monotonic() + grace
    terminated: set[int] = set()
    pause = 0.002
    empty_rounds = 0
    # A list of processes is not made at one moment, so it can miss a process that gets
    # another parent meanwhile. So two lists in a row must be empty.
    while empty_rounds < 2:
        found = find()
        empty_rounds = 0 if found else empty_rounds + 1
        if time.monotonic() < deadline:
            processes.terminate(found - terminated)
            terminated |= found
        else:
            # All processes are frozen before one is killed, because in a simulated
            # power cut no process may notice that another one ends.
            processes.send(signal.SIGSTOP, found)
            processes.send(signal.SIGKILL, found)
        time.sleep(pause)
        pause = min(pause * 1.5, 0.02)
        each_round()


def reap() -> dict[int, int]:
    """Reap all children that have ended; return the wait status of each, by pid."""
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended[pid] = status


def _listed_by_ps() -> list[Process]:
    rows = [line.split() for line in _ps("-axo", "pid=,ppid=,stat=").splitlines()]
    return [Process(int(row[0]), int(row[1]), 0, row[2][:1] == b"Z") for row in rows]


def _ps(*arguments: str) -> bytes:
    return subprocess.run(["ps", *arguments], capture_output=True, check=False).stdout
