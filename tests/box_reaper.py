"""
Ends the boxes of a test process with it, however it ends.

A local box outlives its client on purpose. Therefore a separate process waits on a pipe
that only the test process holds open. When the pipe closes, by an exit or by a kill,
that process kills everything in the registered folders and deletes them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path

# How often to search again for processes that were started meanwhile.
ROUNDS = 100

_watchers: dict[int, subprocess.Popen[bytes]] = {}
_one_at_a_time = threading.Lock()


def ends_with_us(folder: Path) -> None:
    """
    Register a folder whose processes and files are removed when this process ends.
    """
    # Worlds are created in several threads: a second watcher would replace the
    # first one, which would then end all folders registered with it.
    with _one_at_a_time:
        watcher = _watchers.get(os.getpid())
        if watcher is None:
            watcher = subprocess.Popen(
                [sys.executable, "-I", "-S", __file__],
                stdin=subprocess.PIPE,
                start_new_session=True,
            )
            _watchers[os.getpid()] = watcher
        assert watcher.stdin is not None
        watcher.stdin.write(os.fsencode(folder) + b"\n")
        watcher.stdin.flush()


def living_in(folder: Path) -> list[int]:
    """Return the processes whose command line or environment names a folder."""
    mark, found = os.fsencode(folder), []
    for pid in [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit()]:
        if pid != os.getpid() and (mark in seen(pid, "cmdline") + seen(pid, "environ")):
            found.append(pid)
    return found


def seen(pid: int, name: str) -> bytes:
    """Return a file of a process in /proc; nothing if the process has ended."""
    # Every test does this for every process, so it must be fast.
    try:
        file = os.open(f"/proc/{pid}/{name}", os.O_RDONLY)
    except OSError:
        return b""
    try:
        return os.read(file, 1 << 20)
    except OSError:
        return b""
    finally:
        os.close(file)


def end(folders: Iterable[Path]) -> None:
    """
    Kill the processes in these folders, also those just being started, and delete
    them.
    """
    for folder in folders:
        for _ in range(ROUNDS):
            living = living_in(folder)
            if not living:
                break
            for pid in living:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    end([Path(os.fsdecode(line.rstrip(b"\n"))) for line in sys.stdin.buffer])
