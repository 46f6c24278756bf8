"""
The pool: the main process of a job that has units. It runs them, several at once.

It is a child of the job's supervisor, which handles the job's log, its cancellation and
its exit record. The result of a unit is in the unit's folder before the unit counts as
ended, so that a later job of the same run does not run it again.
"""

from __future__ import annotations

import collections
import contextlib
import os
import select
import signal
import time
from typing import Deque, Dict, List, Tuple

from .. import processes
from ..box import BoxConfig, cpus
from ..jobs import metrics
from . import cpu_slots, threads
from . import leftovers as leftover
from . import limits as pool_limits
from . import result as unit_result
from . import share as unit_share
from .leftovers import Leftovers
from .limits import Disk
from .plan import UnitPlan
from .process import Place, UnitProcess, describe, measure_memory
from .progress import Progress, ProgressFiles
from .tally import Tally

# All times are in seconds.
TICK = 1.0
# The progress is written at most once in this time.
PROGRESS = 0.2
# A shutdown signals all processes in any order, so a unit that SIGTERM has ended counts
# as failed only if the pool gets no SIGTERM within this time.
SHUTDOWN_SKEW = 1.0
# After a unit that could not be started the pool waits, because the reason, such as a
# full disk, may pass; after so many in a row it does not wait any more.
PAUSE, PAUSES = 1.0, 10
# At the end, results that could not be written are tried again for this time. The
# supervisor frees some space on a full disk within a second.
LAST_TRIES = 5.0
STOPPED = 128 + signal.SIGTERM
# At most so many failures are printed: of units that have failed, and of attempts after
# which the unit runs again.
MOST_LINES = {False: 100, True: 10}


def run(box: BoxConfig, directory: str, environment: Dict[bytes, bytes]) -> int:
    """
    Run the units of the job in *directory*; return the exit code of the job.

    It is 0 if all units are done, 143 if the job was stopped with units left, else 1.
    """
    return _Pool(box, directory, environment).run()


class _Pool:
    def __init__(
        self, box: BoxConfig, directory: str, environment: Dict[bytes, bytes]
    ) -> None:
        self.wake = processes.wake_on_signals()
        processes.become_subreaper()
        share = unit_share.read(directory)
        self.plan = UnitPlan(share)
        head = self.head = self.plan.head
        if share.is_whole:
            self.at_once = cpu_slots.at_once(head.cpus, head.memory)
            self.at_once = min(self.at_once, len(self.plan))
            self.slots = cpu_slots.slots(head.cpus, self.at_once)
        else:
            # A scheduler has given this pool what one unit needs.
            self.at_once, self.slots = 1, [set()]
        self.place = Place(
            job=os.path.basename(share.directory),
            work=box.work,
            environment=environment,
            threads=threads.variables(min(head.cpus, cpus())),
            oom_score=pool_limits.oom_score(),
        )
        self.log_limit = pool_limits.log_limit(share.directory)
        self.disk = Disk(directory, box.work)
        self.files = ProgressFiles(directory, self.at_once)
        self.leftovers = Leftovers()
        self.tally = Tally(len(self.plan))
        self.free = list(range(self.at_once))[::-1]
        self.running: Dict[int, UnitProcess] = {}
        self.ending: List[UnitProcess] = []
        self.next = 0
        self.again: Deque[Tuple[int, int]] = collections.deque()
        self.unwritten: Dict[int, UnitProcess] = {}
        self.stopping = False
        self.start_at = self.tick_at = self.list_at = self.progress_at = 0.0
        self.failed_starts = 0
        # The number of failures to print: those that count, and those that run again.
        self.lines = {False: 0, True: 0}
        self.oom_kills = metrics.oom_kills()

    def run(self) -> int:
        """Run all units to their end; return the exit code of the pool."""
        self.skip_done()
        while self.running or self.ending or self.can_start():
            self.start_units()
            self.wait()
            self.reap()
            self.end_units()
            self.tick()
        self.finish()
        if self.stopping and self.tally.left:
            return STOPPED
        return 1 if self.tally.done < len(self.plan) else 0

    def skip_done(self) -> None:
        """Count the units that were done before, and print the first line."""
        for index in range(len(self.plan)):
            unit = self.plan.unit(index)
            path = unit_result.folder(self.place.work, unit)
            if unit_result.is_done(path, self.head, unit):
                self.tally.skip(index)
        count, before = len(self.plan), self.tally.skipped
        line = "%d unit%s, %d at once" % (
            count,
            "" if count == 1 else "s",
            self.at_once,
        )
        _print(line + (", %d done before" % before if before else ""))
        self.write_progress(time.monotonic())

    # Starting units

    def can_start(self) -> bool:
        """Return whether a unit is waiting to be started."""
        while self.next < len(self.plan) and self.tally.is_done(self.next):
            self.next += 1
        return not self.stopping and (self.next < len(self.plan) or bool(self.again))

    def start_units(self) -> None:
        """Start as many units as may run now."""
        # A unit that leaves processes running does not hold its slot until they have
        # ended, but there must not be too many such units.
        most_ending = max(64, 4 * self.at_once)
        for _ in range(len(self.free)):
            late = time.monotonic() < self.start_at
            if late or len(self.ending) >= most_ending or not self.can_start():
                return
            index, attempt = self.next, 1
            if index < len(self.plan):
                self.next += 1
            else:
                index, attempt = self.again.popleft()
            self.start(
                UnitProcess(index, self.plan.unit(index), attempt, self.free[-1])
            )

    def start(self, unit: UnitProcess) -> None:
        """Start a unit in the free slot that it has got."""
        unit.started, unit.began = time.time(), time.monotonic()
        unit.oom_kills = self.oom_kills
        try:
            unit.start(self.place, self.head, self.slots[unit.slot])
        except OSError as error:
            unit.why = error.strerror or str(error)
            pause = PAUSE if self.failed_starts < PAUSES else 0.0
            self.failed_starts += 1
            self.start_at = unit.began + pause
            self.end_unit(unit)
            return
        self.failed_starts = 0
        self.free.pop()
        self.running[unit.pid] = unit
        self.tally.changed = True
        self.files.set_running(unit.slot, unit.unit.number)

    # Waiting for units

    def wait(self) -> None:
        """Wait for a signal, or until something is due; note a SIGTERM."""
        due = [self.tick_at, self.progress_at if self.tally.changed else self.tick_at]
        due += [unit.act_at for unit in self.ending]
        if self.free and self.can_start():
            due.append(self.start_at)
        select.select([self.wake], [], [], max(min(due) - time.monotonic(), 0.0))
        with contextlib.suppress(BlockingIOError):
            if signal.SIGTERM in os.read(self.wake, 4096):
                self.stop()

    def stop(self) -> None:
        """
        Start no more units.

        The supervisor sends SIGTERM to the units. It cannot know those that were
        started after it had listed the processes, so these get the signal here.
        """
        if self.stopping:
            return
        self.stopping = True
        since = time.monotonic() - SHUTDOWN_SKEW
        fresh = [unit.pid for unit in self.running.values() if unit.began > since]
        processes.send(signal.SIGTERM, fresh)

    def reap(self) -> None:
        """Reap the children that have ended: units, and processes they left running."""
        ended = False
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            unit = self.running.pop(pid, None)
            if unit is None:
                owner = self.leftovers.forget(pid)
                if owner is not None:
                    owner.add_usage(usage)
                continue
            ended = True
            now = time.monotonic()
            unit.end(status, usage, now)
            unit.act_at = now + leftover.WAIT
            unit.give_up_at = now + leftover.UNKILLABLE
            self.free.append(unit.slot)
            self.ending.append(unit)
        if ended or self.ending:
            # This comes before the slots are used again, because the CPUs of a slot
            # may be all that shows to which unit a process belongs.
            self.leftovers.find([*self.ending, *self.running.values()])

    def end_units(self) -> None:
        """End the units that have ended and that have left nothing running."""
        now = time.monotonic()
        for unit in list(self.ending):
            if not self.leftovers.end(unit, now):
                continue
            held = unit.began + unit.seconds + SHUTDOWN_SKEW
            if unit.code == STOPPED and not self.stopping and now < held:
                unit.act_at = held
                continue
            self.ending.remove(unit)
            self.end_unit(unit)

    # The results of units

    def end_unit(self, unit: UnitProcess) -> None:
        """Count a unit that has ended, write its result, or let it run again."""
        if self.stopping and unit.code:
            # The order to stop has probably ended it, so it has not failed.
            self.tally.forget(unit.index)
        else:
            unit.shorten_log(self.log_limit)
            self.find_cause(unit)
            again = bool(unit.code) and unit.attempt <= self.head.retries
            if unit.code:
                self.print_failure(unit, again=again)
            if again:
                self.again.append((unit.index, unit.attempt + 1))
            else:
                self.write_result(unit)
                self.tally.end(unit.index, unit.code == 0, unit.started, unit.seconds)
        if unit.pid and unit.slot in self.free:
            self.files.set_running(unit.slot, 0)

    def print_failure(self, unit: UnitProcess, *, again: bool) -> None:
        """Print how a unit has failed, unless enough such lines have been printed."""
        self.lines[again] += 1
        most = MOST_LINES[again]
        if self.lines[again] <= most:
            _print(describe(unit.result(self.head, self.place.job), again))
        elif self.lines[again] == most + 1 and not again:
            _print("onebox: further failures are not printed; units.csv has them all")

    def find_cause(self, unit: UnitProcess) -> None:
        """Set the cause why a unit failed, if it is more than its exit code."""
        if unit.pid and unit.code == 0 and not os.path.isdir(unit.folder):
            unit.code, unit.cause = 1, "outputs-lost"
        elif unit.pid and unit.code:
            oom = unit.code == 128 + signal.SIGKILL and metrics.killed_for_memory(
                unit.oom_kills, unit.code
            )
            if oom:
                unit.cause = "oom"
            elif self.disk.is_full():
                unit.cause = "disk-full"

    def write_result(self, unit: UnitProcess) -> None:
        """Write a unit's result; if that fails, it is tried again later."""
        try:
            if unit.code:
                os.makedirs(unit.folder, exist_ok=True)
            unit_result.write(unit.folder, unit.result(self.head, self.place.job))
            self.unwritten.pop(unit.index, None)
        except OSError:
            self.unwritten[unit.index] = unit

    def tick(self) -> None:
        """Do what is due: once a second look at memory, logs and unwritten results."""
        now = time.monotonic()
        if self.tally.changed and now >= self.progress_at:
            self.write_progress(now)
        if now < self.tick_at:
            return
        self.tick_at = now + TICK
        self.oom_kills = metrics.oom_kills()
        for unit in self.running.values():
            unit.shorten_log(self.log_limit)
        if self.running and now >= self.list_at:
            began = time.process_time()
            measure_memory(self.running.values(), processes.all_processes())
            # Listing thousands of processes is not cheap: see metrics.Sampler.
            self.list_at = now + 200 * (time.process_time() - began) - 0.5
        for unit in list(self.unwritten.values()):
            self.write_result(unit)

    def write_progress(self, now: float) -> None:
        """Write the counts of the units."""
        self.progress_at = now + PROGRESS
        tally = self.tally
        tally.changed = False
        self.files.update(
            Progress(
                total=len(self.plan),
                done=tally.done,
                failed=tally.failed,
                running=len(self.running),
                left=tally.left,
                skipped=tally.skipped,
                at_once=self.at_once,
                mean=tally.mean,
            )
        )

    # The end

    def finish(self) -> None:
        """Write the results that are missing, and check that all others are there."""
        end = time.monotonic() + LAST_TRIES
        while self.unwritten:
            for unit in list(self.unwritten.values()):
                self.write_result(unit)
            if not self.disk.is_full() or time.monotonic() >= end:
                break
            time.sleep(0.1)
        # A job that is stopped has no time for this; the next one looks again.
        if not self.stopping:
            for index in range(len(self.plan)):
                if self.tally.is_done(index):
                    self.check(index)
        self.write_progress(time.monotonic())

    def check(self, index: int) -> None:
        """Count a done unit as failed if its result is gone: so are its outputs."""
        data = self.plan.unit(index)
        path = unit_result.folder(self.place.work, data)
        if unit_result.is_done(path, self.head, data):
            return
        unit = self.unwritten.get(index) or UnitProcess(index, data, 1, 0)
        unit.folder = path
        unit.started, unit.seconds = self.tally.times(index)
        unit.code, unit.cause = 1, "outputs-lost"
        if index in self.unwritten and self.disk.is_full():
            unit.cause = "disk-full"
        self.tally.fail_after_all(index)
        _print(describe(unit.result(self.head, self.place.job), again=False))
        self.write_result(unit)


def _print(line: str) -> None:
    """Print a line to the job's log, unless the disk is full."""
    with contextlib.suppress(OSError):
        os.write(1, line.encode("utf-8", "backslashreplace") + b"\n")
