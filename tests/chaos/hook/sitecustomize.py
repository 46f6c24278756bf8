"""
Kill this process (-9) at one exact step of its own; Python loads this at start.

A step is whatever changes something outside: a file opened to be written, a
byte written, a name made, moved or removed, a program started, a signal sent.
It is known by what it does and by the lines of onebox that led to it, so that
the same step is met again in another run, however often something was waited
for in between. `ONEBOX_STEPS` names a file to list the steps in; in `ONEBOX_KILL`
stands the one to die at, as it is listed; in `ONEBOX_FULL` the one from which on
the disk is full; in `ONEBOX_INTERRUPT` the one at which Ctrl-C is pressed.
`ONEBOX_MET` names a file that is made when it comes to that.
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

# Of the audit events, those before a change; `open` is looked at more closely.
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
# A loop's first rounds are as good as all.
ROUNDS = 2

# What a full disk refuses.
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
    """Count a step; if it is the wanted one, do what *last* does and die."""
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
    """Return the lines of onebox that have led here, the innermost first."""
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
    """Make a step of the moment when a function has just done its work."""
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
