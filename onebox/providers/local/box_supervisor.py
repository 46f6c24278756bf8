"""
The supervisor of a local box, which acts as a cloud's control plane.

It is not confined, and processes in the box cannot signal it (where Landlock can
prevent that). It holds the box's lock, which shows that the box is alive. It starts the
machine process. It ends all processes of the box when a client or the box orders it,
after the deadline, when the machine process dies, or when the box's directory is
removed.
"""

from __future__ import annotations

import contextlib
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

from ...agent.box import is_locked
from ...agent.processes import become_subreaper
from . import box_processes
from .layout import MARK, Layout, MachineConfig, write_json

# All times are in seconds. The agent powers the box off at its deadline. If the agent
# is dead, the supervisor stops the box this much later, like a cloud that enforces a
# maximum run time.
DEADLINE_MARGIN = 15 * 60.0
# The clocks and the directory are checked at this interval.
_TICK = 1.0
_BOOT_SECONDS = 60.0
# The supervisor waits this long for a job to end, which is longer than the watchdog
# waits.
_JOB_SECONDS = 75.0


def main(arguments: Sequence[str]) -> None:
    """
    Run the box in a directory until it stops.

    Args:
        arguments: The directory, and the descriptor that holds its lock.
    """
    layout, lock = Layout(Path(arguments[0])), int(arguments[1])
    os.set_inheritable(lock, False)
    # The client waits only for this process. The child process supervises the box.
    if os.fork():
        os._exit(0)
    os.setsid()
    os.umask(0o077)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    become_subreaper()
    _BoxSupervisor(layout).run()


class _BoxSupervisor:
    """Runs a box from boot to stop; each reboot starts a new machine process."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        boot = MachineConfig.load(layout.boot)
        if boot is None:
            raise SystemExit(f"{layout.boot} is missing or invalid")
        self._boot = boot
        self._directory = layout.path.stat()
        # The pipes are opened for reading and writing, so that a pipe never has an end
        # of file, even when its last other writer closes it.
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
        """Boot the box, watch it until it stops, and publish why it stopped."""
        why = "reboot"
        while why == "reboot":
            with self._boot_machine() as machine:
                why = self._watch(machine)
                _log(f"the box goes down: {why}")
                if why in ("poweroff", "reboot"):
                    self._end_job()
                if why != "reboot":
                    _refuse_connections(self._listener)
                self._publish(state="stopping")
                box_processes.end(self._all_processes, each_round=box_processes.reap)
        refused = why.partition("refused: ")[2]
        self._publish(state="failed" if refused else "stopped", why=refused or why)

    def _boot_machine(self) -> socket.socket:
        """Start the machine process; return the socket that is connected to it."""
        boot_id = str(uuid.uuid4())
        for stale in ("lease", "notice", "off"):
            (self._layout.agent / stale).unlink(missing_ok=True)
        write_json(
            self._layout.agent / "box.json",
            {**self._boot.agent, "armed": time.time(), "boot_id": boot_id},
        )
        self._publish(state="starting", boot_id=boot_id, why="")
        self._set_timers()
        machine, machines_end = socket.socketpair()
        self._start_machine(machines_end)
        with contextlib.suppress(BrokenPipeError):
            # If the machine is dead already, `_watch` notices that.
            machine.sendall(json.dumps(self._boot.to_json()).encode() + b"\n")
        return machine

    def _start_machine(self, machines_end: socket.socket) -> None:
        listener = self._listener.fileno()
        with machines_end:
            subprocess.Popen(
                box_processes.command(
                    "machine",
                    self._boot.python_path,
                    str(self._layout.path),
                    str(machines_end.fileno()),
                    str(listener),
                ),
                stdin=subprocess.DEVNULL,
                pass_fds=(machines_end.fileno(), listener),
                env={MARK: self._boot.box, "LANG": self._boot.lang},
            )

    def _watch(self, machine: socket.socket) -> str:
        """Wait until the box must stop or reboot; return the reason."""
        answer = b""
        while True:
            wait = min([_TICK, *(at - _now() for at in self._timers.values())])
            watched: list[Any] = [machine, self._control, self._power, self._wake]
            ready = select.select(watched, [], [], max(0.0, wait))[0]
            if self._wake in ready:
                numbers = os.read(self._wake, 4096)
                box_processes.reap()
                if signal.SIGTERM in numbers:
                    return "the supervisor was asked to end"
            if machine in ready:
                received = _receive(machine)
                if not received:
                    return "the machine crashed"
                answer += received
                if answer.endswith(b"\n"):
                    refusal = self._handle_answer(json.loads(answer))
                    if refusal:
                        return f"refused: {refusal}"
            for order in _lines(self._control, ready):
                return order
            for order in _lines(self._power, ready):
                self._handle_power_order(order)
            due = self._handle_timers()
            if due:
                return due

    def _handle_answer(self, answer: dict[str, Any]) -> str:
        """
        Handle the machine's answer to the boot configuration.

        If the machine has started, publish the state "running" and return "". Otherwise
        return the reason why the machine refused to start.
        """
        if "refused" in answer:
            return str(answer["refused"])
        self._timers.pop("boot", None)
        self._plan_faults()
        port = self._listener.getsockname()[1]
        self._publish(state="running", port=port, notes=answer["notes"])
        return ""

    def _handle_power_order(self, order: str) -> None:
        """
        Handle an order from the box: a command and a delay, such as "poweroff 60".

        Each order cancels the earlier orders. The order "cancel 0" does nothing else.
        """
        what, _, seconds = order.partition(" ")
        for previous in ("poweroff", "reboot"):
            self._timers.pop(previous, None)
        if what in ("poweroff", "reboot") and seconds.isdigit():
            self._timers[what] = _now() + int(seconds)

    def _set_timers(self) -> None:
        now = _now()
        left = self._boot.deadline + DEADLINE_MARGIN - time.time()
        self._timers = {"deadline": now + left, "boot": now + _BOOT_SECONDS}

    def _plan_faults(self) -> None:
        """
        Set the timers of the faults that affect the whole box, when it has come up.
        """
        now, faults = _now(), self._boot.faults
        if "notice_after" in faults:
            self._timers["notice"] = now + faults["notice_after"]
        if "die_after" in faults:
            self._timers["die"] = now + faults["die_after"]

    def _handle_timers(self) -> str:
        """
        Act on the timers that have expired.

        Return the reason why the box must stop or reboot, "" if it need not.
        """
        if not self._exists():
            return "its directory is gone"
        # The deadline is checked by two clocks, here by the wall clock and below by a
        # timer. The wall clock can be set, and the clock of the timers may not count
        # the time in suspend.
        if time.time() > self._boot.deadline + DEADLINE_MARGIN:
            return "deadline"
        now = _now()
        for name in [name for name, at in self._timers.items() if at <= now]:
            del self._timers[name]
            if name == "notice":
                self._give_notice()
            elif name == "die":
                self._cut_power()
            elif name == "boot":
                return "refused: the machine did not start within a minute"
            else:
                return name
        return ""

    def _give_notice(self) -> None:
        """Announce a preemption to the agent."""
        seconds = self._boot.faults["notice_seconds"]
        self._timers["preempted"] = _now() + seconds
        write_json(self._layout.agent / "notice", {"at": time.time() + seconds})

    def _cut_power(self) -> None:
        """
        End all processes as in a power cut, without SIGTERM and without a final state.
        """
        box_processes.end(self._all_processes, grace=0.0, each_round=box_processes.reap)
        os._exit(1)

    def _end_job(self) -> None:
        """
        Ask the watchdog to end the job, as on a cloud, and wait until it has done so.

        Wait at most _JOB_SECONDS.
        """
        request, lock = self._layout.agent / "off", self._layout.agent / "watch.lock"
        until = _now() + _JOB_SECONDS
        if self._exists() and is_locked(str(lock)):
            write_json(request, {})
            while request.exists() and is_locked(str(lock)) and _now() < until:
                box_processes.reap()
                time.sleep(0.05)

    def _all_processes(self) -> set[int]:
        box = self._boot.box
        return box_processes.descendants(os.getpid()) | box_processes.marked(box)

    def _exists(self) -> bool:
        """
        Return whether the box's path is still the directory in which this box started.
        """
        try:
            return os.path.samestat(self._layout.path.stat(), self._directory)
        except OSError:
            return False

    def _publish(self, **changes: Any) -> None:
        """Update the state file, unless the box's directory is gone."""
        self._state.update(changes)
        if self._exists():
            write_json(self._layout.state, self._state)


def _receive(machine: socket.socket) -> bytes:
    """Read from the machine's socket; return b"" if the machine has ended."""
    try:
        return machine.recv(65536)
    except ConnectionResetError:
        # The machine ended before it had read the whole boot configuration.
        return b""


def _refuse_connections(listener: socket.socket) -> None:
    """
    Refuse new connections from now on.

    To close the socket is not enough, because the machine also has it open.
    """
    try:
        listener.shutdown(socket.SHUT_RDWR)
    except OSError:
        # Only Linux can shut a listening socket down. On other systems the socket stays
        # open until the machine ends, a moment later.
        return
    finally:
        listener.close()


def _lines(pipe: int, ready: Sequence[Any]) -> list[str]:
    """
    Return the lines that a pipe holds, [] if *ready* does not contain *pipe*.

    A line holds one order, which is so short that it is written and read as a whole.
    """
    if pipe not in ready:
        return []
    return os.read(pipe, 65536).decode("utf-8", "replace").split("\n")[:-1]


def _now() -> float:
    """
    Return the time in seconds by a clock that cannot be set.

    On Linux it also counts the time in suspend.
    """
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _log(sentence: str) -> None:
    """Write a line to the box's console, which is standard error."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S")
    sys.stderr.write(f"{stamp} {sentence}\n")
    sys.stderr.flush()
