"""Start a unit as a process, and follow what it uses until it has ended."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Set

from .. import processes
from ..file_names import raw
from ..jobs import exec
from ..processes import Process
from . import result as unit_result
from .plan import Head, Unit

# The largest number of commands in a result that a unit left running.
MOST_SURVIVORS = 20
# The signals that the pool handles or ignores; a unit gets them as usual.
HANDLED = (
    *(signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP),
    *(signal.SIGPIPE, signal.SIGXFSZ),
)


class Place(NamedTuple):
    """
    What all units of a pool share.

    *work* is the work directory, *environment* the variables of the job, *threads*
    those that a unit gets if the job does not set them. *oom_score* is how early the
    kernel kills a unit when memory runs out.
    """

    job: str
    work: str
    environment: Mapping[bytes, bytes]
    threads: Mapping[str, str]
    oom_score: int


class UnitProcess:
    """
    One attempt to run a unit.

    *index* is the place of the unit in the job's list, *slot* that among those that run
    at once. *pid* is 0 if the unit could not be started; *why* then tells the reason.
    """

    def __init__(self, index: int, unit: Unit, attempt: int, slot: int) -> None:
        self.index = index
        self.unit = unit
        self.attempt = attempt
        self.slot = slot
        self.folder = ""
        self.cpus: Set[int] = set()
        self.pid = 0
        self.why = ""
        self.started = self.began = self.seconds = 0.0
        self.log_start = 0
        self.oom_kills = (0, 0)
        self.cpu_seconds = 0.0
        self.memory_peak = 0
        self.code = 126
        self.signal: Optional[int] = None
        self.cause = "not-started"
        self.survivors: List[str] = []
        # When `leftovers` acts next on the processes that the unit left running, and
        # which signal they have received, 0 for none.
        self.act_at = 0.0
        self.sent = 0
        self.give_up_at = 0.0

    def start(self, place: Place, head: Head, cpus: Set[int]) -> None:
        """
        Start the unit on these *cpus*, an empty set for all.

        Raises OSError if it cannot be started.
        """
        self.cpus = cpus
        self.folder = unit_result.folder(place.work, self.unit)
        unit_result.prepare(place.work, self.unit, head.run)
        log = unit_result.open_log(self.folder)
        try:
            if os.fstat(log).st_size:
                # The log has the output of an earlier attempt. The disk may be full.
                line = "onebox: attempt %d of job %s\n" % (self.attempt, place.job)
                with contextlib.suppress(OSError):
                    os.write(log, line.encode("ascii"))
            self.log_start = os.fstat(log).st_size
            environment = self._environment(place, head)
            self.pid = _start(self.unit, place, environment, log, cpus)
        finally:
            os.close(log)

    def end(self, status: int, usage: Any, now: float) -> None:
        """Take over how the main process has ended, at the monotonic time *now*."""
        self.seconds = now - self.began
        self.signal = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        self.code = exec.exit_code(status)
        self.cause = "exit" if self.signal is None else "signal"
        self.add_usage(usage)

    def add_usage(self, usage: Any) -> None:
        """Add what a process of the unit has used that has ended."""
        self.cpu_seconds += usage.ru_utime + usage.ru_stime
        scale = 1 if sys.platform == "darwin" else 1024
        self.memory_peak = max(self.memory_peak, usage.ru_maxrss * scale)

    def shorten_log(self, limit: int) -> None:
        """Drop the middle of the unit's log if it has more than *limit* bytes."""
        if unit_result.shorten_log(self.folder, limit):
            self.log_start = min(self.log_start, limit // 2)

    def result(self, head: Head, job: str) -> Dict[str, Any]:
        """Return the contents of unit.json."""
        return {
            "unit": self.unit.number,
            "units": head.total,
            "run": head.run,
            "job": job,
            "parameters": head.parameters(self.unit),
            "command": self.unit.text,
            "code": self.code,
            "signal": self.signal,
            "cause": self.cause,
            "attempts": self.attempt,
            "started": round(self.started, 3),
            "seconds": round(self.seconds, 3),
            "cpu_seconds": round(self.cpu_seconds, 3),
            "memory_peak": self.memory_peak,
            "log_bytes": unit_result.log_size(self.folder),
            "last": self.why or unit_result.last_line(self.folder, self.log_start),
            "survivors": self.survivors[:MOST_SURVIVORS],
        }

    def _environment(self, place: Place, head: Head) -> Dict[bytes, bytes]:
        """Return the variables of the unit; a variable of the job comes first."""
        environment = {raw(k): raw(v) for k, v in place.threads.items()}
        environment.update(place.environment)
        environment.update(zip(map(raw, head.names), map(raw, self.unit.values)))
        environment.update(
            {
                b"ONEBOX_UNIT": b"%d" % self.unit.number,
                b"ONEBOX_UNITS": b"%d" % head.total,
                b"ONEBOX_UNIT_OUTPUTS": os.fsencode(self.folder),
            }
        )
        return environment


def describe(result: Mapping[str, Any], again: bool) -> str:
    """Return the line of the job's log about a unit that failed."""
    cause, code = result["cause"], result["code"]
    how = "exit %d" % code
    if result["signal"] is not None:
        how = "killed by %s" % _signal_name(result["signal"])
    if cause == "oom":
        how += " (out of memory)"
    elif cause == "disk-full":
        how += " (disk full)"
    if cause in ("not-started", "outputs-lost"):
        how = {"not-started": "not started"}.get(cause, "its outputs were removed")
    else:
        how += " after %.1f s" % result["seconds"]
    line = "unit %d: %s%s" % (result["unit"], how, ", runs again" if again else "")
    return line + (": " + result["last"] if result["last"] else "")


def measure_memory(units: Iterable[UnitProcess], listed: Iterable[Process]) -> None:
    """Raise the memory peak of running units by one listing of all processes."""
    below: Dict[int, List[Process]] = {}
    own: Dict[int, int] = {}
    for process in listed:
        below.setdefault(process.parent, []).append(process)
        own[process.pid] = process.memory
    for unit in units:
        total, parents = own.get(unit.pid, 0), [unit.pid]
        while parents:
            for process in below.get(parents.pop(), []):
                total += process.memory
                parents.append(process.pid)
        unit.memory_peak = max(unit.memory_peak, total)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "signal %d" % number


def _start(
    unit: Unit,
    place: Place,
    environment: Dict[bytes, bytes],
    log: int,
    cpus: Set[int],
) -> int:
    """
    Start the unit's main process; return its pid.

    `posix_spawn` is several times faster than a fork of Python. The new process gets
    the CPUs of the pool, so the pool takes those of the unit for a moment.
    """
    before = _bind(cpus)
    try:
        # If the system cannot, or no program can be started, the forked process below
        # prints why.
        with contextlib.suppress(NotImplementedError, OSError):
            return _spawn(unit.commands, place, environment, log)
    finally:
        _bind(before)
    return _fork(unit, place, environment, log, cpus)


def _spawn(
    commands: List[List[bytes]],
    place: Place,
    environment: Dict[bytes, bytes],
    log: int,
) -> int:
    """
    Start the first of *commands* that exists; return its pid.

    Raises NotImplementedError or OSError if none can be started in this way.
    """
    for words in commands:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            pid = os.posix_spawnp(
                words[0],
                words,
                environment,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, log, 1),
                    (os.POSIX_SPAWN_DUP2, log, 2),
                ],
                setsid=True,
                setsigmask=[],
                setsigdef=HANDLED,
            )
            processes.adjust_oom_score(place.oom_score, pid)
            return pid
    raise FileNotFoundError


def _fork(
    unit: Unit,
    place: Place,
    environment: Dict[bytes, bytes],
    log: int,
    cpus: Set[int],
) -> int:
    """Start the unit's main process; return its pid."""
    commands = unit.commands
    everything = set(signal.valid_signals())
    signal.pthread_sigmask(signal.SIG_BLOCK, everything)
    try:
        pid = os.fork()
        if pid == 0:
            try:
                if cpus:
                    _bind(cpus)
                exec.become_command(
                    commands, environment, place.work, log, place.oom_score
                )
            finally:
                os._exit(126)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, everything)
    return pid


def _bind(cpus: Set[int]) -> Set[int]:
    """
    Let this process run on these *cpus* only, unless that is not allowed.

    Return those on which it was allowed to run before; both are empty for no change.
    """
    if not cpus:
        return set()
    try:
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, cpus)
    except OSError:
        return set()
    return before
