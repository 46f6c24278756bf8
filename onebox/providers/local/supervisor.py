"""
The supervisor of a local box: what a cloud's control plane is to a VM.

It is not confined, and the box cannot signal it. It holds the lock that means
"alive", boots the machine, and ends everything when told to, when the deadline
has passed, when the machine dies, or when the box's directory is gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import processes
from .layout import MARK, Layout, command, read_json, write_json

# The agent ends a box at its deadline. Should it be dead, this is how much later
# the provider's own layer does, as a cloud's maximum run time would.
DEADLINE_MARGIN = 15 * 60.0
# How often the clocks, and the directory, are looked at.
_TICK = 1.0
_BOOT_SECONDS = 60.0
# More than the watch gives a job to end.
_JOB_SECONDS = 75.0


def main(arguments: Sequence[str]) -> None:
    """
    Run the box in this directory until it stops.

    *arguments*: the directory and the descriptor that holds its lock.
    """
    layout, lock = Layout(Path(arguments[0])), int(arguments[1])
    os.set_inheritable(lock, False)
    # Whoever started us waits for this process, and not for the box.
    if os.fork():
        os._exit(0)
    os.setsid()
    os.umask(0o077)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    processes.adopt_orphans()
    _Supervisor(layout).run()


class _Supervisor:
    """One box from boot to stop; a reboot is a second machine, same supervisor."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._boot: dict[str, Any] = read_json(layout.boot) or {}
        self._directory = layout.path.stat()
        # Both ends open, so that a pipe never ends when its last writer goes.
        self._control = os.open(layout.control, os.O_RDWR | os.O_NONBLOCK)
        self._power = os.open(layout.power, os.O_RDWR | os.O_NONBLOCK)
        self._wake, wake = os.pipe()
        for end in (self._wake, wake):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: None)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._state: dict[str, Any] = {}
        self._timers: dict[str, float] = {}

    def run(self) -> None:
        """Boot, watch, and when it is over say why."""
        why = "reboot"
        while why == "reboot":
            with self._boot_machine() as line:
                why = self._watch(line)
                _say(f"the box goes down: {why}")
                if why in ("poweroff", "reboot"):
                    self._end_job()
                if why != "reboot":
                    _close_door(self._listener)
                self._publish(state="stopping")
                processes.end(self._everything, each_round=_reap)
        refused = why.partition("refused: ")[2]
        self._publish(state="failed" if refused else "stopped", why=refused or why)

    def _boot_machine(self) -> socket.socket:
        """Start the machine; return the line to it."""
        boot_id = str(uuid.uuid4())
        for stale in ("lease", "notice", "off"):
            (self._layout.agent / stale).unlink(missing_ok=True)
        write_json(
            self._layout.agent / "box.json",
            {**self._boot["agent"], "armed": time.time(), "boot_id": boot_id},
        )
        self._publish(state="starting", boot_id=boot_id, why="")
        self._set_timers()
        line, theirs = socket.socketpair()
        self._start_machine(theirs)
        with contextlib.suppress(BrokenPipeError):
            # Dead already? Then the line has ended, and that is acted upon.
            line.sendall(json.dumps(self._boot).encode() + b"\n")
        return line

    def _start_machine(self, theirs: socket.socket) -> None:
        listener = self._listener.fileno()
        with theirs:
            subprocess.Popen(
                command(
                    "machine",
                    self._boot["python_path"],
                    str(self._layout.path),
                    str(theirs.fileno()),
                    str(listener),
                ),
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), listener),
                env={MARK: self._boot["box"], "LANG": self._boot["lang"]},
            )

    def _watch(self, line: socket.socket) -> str:
        """Return why the box is over, as soon as it is."""
        said = b""
        while True:
            wait = min([_TICK, *(at - _now() for at in self._timers.values())])
            watched: list[Any] = [line, self._control, self._power, self._wake]
            ready = select.select(watched, [], [], max(0.0, wait))[0]
            if self._wake in ready:
                numbers = os.read(self._wake, 4096)
                processes.reap()
                if signal.SIGTERM in numbers:
                    return "the supervisor was asked to end"
            if line in ready:
                news = _hear(line)
                if not news:
                    return "the machine crashed"
                said += news
                if said.endswith(b"\n"):
                    answer = json.loads(said)
                    if "refused" in answer:
                        return f"refused: {answer['refused']}"
                    self._timers.pop("boot", None)
                    self._plan_faults()
                    port = self._listener.getsockname()[1]
                    self._publish(state="running", port=port, notes=answer["notes"])
            for order in _lines(self._control, ready):
                return order
            for order in _lines(self._power, ready):
                self._ask_power(order)
            due = self._due()
            if due:
                return due

    def _ask_power(self, order: str) -> None:
        """Take what `shutdown` and its like in the box say: a word and seconds."""
        what, _, seconds = order.partition(" ")
        for old in ("poweroff", "reboot"):
            self._timers.pop(old, None)
        if what in ("poweroff", "reboot") and seconds.isdigit():
            self._timers[what] = _now() + int(seconds)

    def _set_timers(self) -> None:
        now = _now()
        left = self._boot["deadline"] + DEADLINE_MARGIN - time.time()
        self._timers = {"deadline": now + left, "boot": now + _BOOT_SECONDS}

    def _plan_faults(self) -> None:
        """Set the clocks of what is to happen to a box that is up."""
        now, faults = _now(), self._boot["faults"]
        if "notice_after" in faults:
            self._timers["notice"] = now + faults["notice_after"]
        if "die_after" in faults:
            self._timers["die"] = now + faults["die_after"]

    def _due(self) -> str:
        """Act on what is due; return why the box is over, "" if it is not."""
        if not self._stands():
            return "its directory is gone"
        # Both clocks: one may be set, the other may not count a suspended night.
        if time.time() > self._boot["deadline"] + DEADLINE_MARGIN:
            return "deadline"
        now = _now()
        for name in [name for name, at in self._timers.items() if at <= now]:
            del self._timers[name]
            if name == "notice":
                self._give_notice()
            elif name == "die":
                self._die()
            elif name == "boot":
                return "refused: the machine did not come up within a minute"
            else:
                return {"taken": "preempted"}.get(name, name)
        return ""

    def _give_notice(self) -> None:
        seconds = self._boot["faults"]["notice_seconds"]
        self._timers["taken"] = _now() + seconds
        write_json(self._layout.agent / "notice", {"at": time.time() + seconds})

    def _die(self) -> None:
        """Go as in a power cut: nobody is asked, nothing is written down."""
        processes.end(self._everything, grace=0.0, each_round=_reap)
        os._exit(1)

    def _end_job(self) -> None:
        """Have the watch end the job while clients are connected, as on a cloud."""
        asked, watch = self._layout.agent / "off", self._layout.agent / "watch.lock"
        until = _now() + _JOB_SECONDS
        if self._stands() and _held(watch):
            write_json(asked, {})
            while asked.exists() and _held(watch) and _now() < until:
                processes.reap()
                time.sleep(0.05)

    def _everything(self) -> set[int]:
        box = self._boot["box"]
        return processes.descendants(os.getpid()) | processes.marked(box)

    def _stands(self) -> bool:
        try:
            return os.path.samestat(self._layout.path.stat(), self._directory)
        except OSError:
            return False

    def _publish(self, **news: Any) -> None:
        self._state.update(news)
        if self._stands():
            write_json(self._layout.state, self._state)


def _hear(line: socket.socket) -> bytes:
    """Read from the machine; nothing means that it has ended."""
    try:
        return line.recv(65536)
    except ConnectionResetError:
        # It ended without having read all that we said.
        return b""


def _held(lock: Path) -> bool:
    """Tell whether a process holds a lock; one that does not exist is free."""
    try:
        fd = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _close_door(listener: socket.socket) -> None:
    """Refuse connections from now on, though the machine still holds the socket."""
    try:
        listener.shutdown(socket.SHUT_RDWR)
    except OSError:
        # Only Linux can do this to a listening socket; elsewhere the door
        # closes a moment later, with the machine.
        return
    finally:
        listener.close()


def _lines(pipe: int, ready: Sequence[Any]) -> list[str]:
    """Return the whole lines in a pipe; an order is short, so never in parts."""
    if pipe not in ready:
        return []
    return os.read(pipe, 65536).decode("utf-8", "replace").split("\n")[:-1]


def _now() -> float:
    """Return seconds on a clock that nobody sets, and that runs in suspend."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _reap() -> None:
    processes.reap()


def _say(sentence: str) -> None:
    """Write a line to the box's console, which is our standard error."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S")
    sys.stderr.write(f"{stamp} {sentence}\n")
    sys.stderr.flush()
