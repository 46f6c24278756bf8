"""
Kills this process (-9) at one exact step of its own; Python loads this at start.

A step is a call that changes something outside of the process: a file opened for
writing, a byte written, a name created, moved or removed, a program started, a signal
sent. A step is identified by its kind and by the lines of onebox that led to it, so
that another run meets the same step, however often it waits in between.

`ONEBOX_STEPS` names a file for the list of steps. `ONEBOX_KILL` is the listed step to
die at, `ONEBOX_FULL` the one from which on the disk is full, `ONEBOX_INTERRUPT` the one
at which Ctrl-C is pressed. `ONEBOX_MET` names a file that is created when the step is
reached.
"""

from __future__ import annotations

import builtins
import collections
import errno
import io
import os
import signal
import stat
import subprocess
import sys
import threading
from typing import Any, Callable

# The audit events before a change; `open` is inspected further.
CHANGES = {
    "os.chmod",
    "os.exec",
    "os.fork",
    "os.kill",
    "os.link",
    "os.mkdir",
    "os.posix_spawn",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.symlink",
    "os.truncate",
    "os.utime",
    "signal.pthread_kill",
    "socket.bind",
    "socket.connect",
    "socket.sendto",
    "subprocess.Popen",
}
WRITES = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
# Only the first rounds of a loop are listed.
ROUNDS = 2

# The calls that fail on a full disk.
FILLING = {"os.link", "os.mkdir", "os.symlink", "open", "os.fsync", "os.mkfifo"}
FILLING |= {"os.write", "os.pwrite"}

_kill = os.environ.pop("ONEBOX_KILL", "")
_fill = os.environ.pop("ONEBOX_FULL", "")
_interrupt = os.environ.pop("ONEBOX_INTERRUPT", "")
_met = os.environ.pop("ONEBOX_MET", "")
_list = os.environ.pop("ONEBOX_STEPS", "")
_package = os.environ.pop("ONEBOX_PACKAGE", "")
_seen: collections.Counter[str] = collections.Counter()
_write = os.write
_busy: set[int] = set()
_full = False


def _step(what: str, *, last: Callable[[], object] = lambda: None) -> None:
    """Count a step; if it is the requested one, call *last* and die."""
    global _full
    me = threading.get_ident()
    way = "" if me in _busy else _way()
    if not way:
        return
    step = f"{what} {way}"
    _seen[step] += 1
    step += f" #{_seen[step]}"
    _busy.add(me)
    if _output and _seen[step[: step.rindex(" ")]] <= ROUNDS:
        _write(_output, f"{step}\n".encode())
    if step in (_kill, _fill, _interrupt):
        os.close(os.open(_met, os.O_CREAT, 0o600))
        _full = step == _fill
    if step == _interrupt:
        os.kill(os.getpid(), signal.SIGINT)
    if step == _kill:
        last()
        os.kill(os.getpid(), signal.SIGKILL)
    _busy.discard(me)
    if _full and what in FILLING:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _way() -> str:
    """Return the lines of onebox that led here, the innermost first."""
    lines = []
    frame = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(_package):
            lines.append(f"{name[len(_package) + 1 :]}:{frame.f_lineno}")
        frame = frame.f_back  # type: ignore[assignment]
    return "<".join(lines)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open":
        path, _, flags = arguments
        if not flags & WRITES or "__pycache__" in str(path):
            return
        event = "open" if flags & os.O_CREAT else "open what is there"
    elif event not in CHANGES:
        return
    _step(event)


def _before(module: Any, name: str) -> None:
    """Make a step of a function that Python does not audit."""
    original = getattr(module, name)

    def stepping(*arguments: Any, **options: Any) -> Any:
        _step(f"os.{name}")
        return original(*arguments, **options)

    setattr(module, name, stepping)


def _after(module: Any, name: str) -> None:
    """Make a step of the moment after a function has returned."""
    original = getattr(module, name)

    def stepping(*arguments: Any, **options: Any) -> Any:
        done = original(*arguments, **options)
        mode = str(options.get("mode", arguments[1] if len(arguments) > 1 else "r"))
        if name != "open" or set(mode) & set("wax+"):
            _step(f"after {name}")
        return done

    setattr(module, name, stepping)


def _writing(fd: int, data: Any) -> int:
    # Torn in the middle: what a power cut, or a full disk, makes of one write.
    half = memoryview(data)[: len(data) // 2]
    _step("os.write" if stat.S_ISREG(os.fstat(fd).st_mode) else "sending")
    _step("half of os.write", last=lambda: _write(fd, half))
    return _write(fd, data)


if _kill or _fill or _interrupt or _list:
    _output = os.open(_list, os.O_WRONLY | os.O_CREAT | os.O_APPEND) if _list else 0
    for _name in ("fsync", "pwrite", "writev", "mkfifo"):
        _before(os, _name)
    _after(subprocess.Popen, "__init__")
    _after(io, "open")
    builtins.open = io.open
    os.write = _writing
    sys.addaudithook(_audit)
