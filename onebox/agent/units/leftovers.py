"""
Find and end the processes that units left running when their main process ended.

The pool adopts them, because it is a subreaper, so they are among its children. One
small read of the list of children shows whether there are any.
"""

from __future__ import annotations

import os
import signal
from typing import Collection, Dict, List, Optional

from .. import processes
from ..box import read
from .process import UnitProcess

# Processes that the main process left running have WAIT seconds to end by themselves,
# then GRACE after SIGTERM. After UNKILLABLE they no longer hold up the unit's end.
WAIT = 0.3
GRACE = 2.0
AGAIN = 0.1
UNKILLABLE = 30.0


class Leftovers:
    """The adopted processes, and to which unit each belongs."""

    def __init__(self) -> None:
        pid = os.getpid()
        self._children = "/proc/%d/task/%d/children" % (pid, pid)
        # Without this file, only the process group of a unit is looked at.
        self._listed = os.path.exists(self._children)
        self._owners: Dict[int, UnitProcess] = {}
        self._found: Dict[UnitProcess, List[int]] = {}

    def forget(self, pid: int) -> Optional[UnitProcess]:
        """Return the unit to which an adopted process belonged that was reaped."""
        return self._owners.pop(pid, None)

    def find(self, units: Collection[UnitProcess]) -> None:
        """
        List the adopted processes of these *units*, running and ended ones.

        A unit that has just ended must be among them until it is finished.
        """
        self._found = {}
        if not self._listed:
            return
        try:
            with open(self._children, "rb") as file:
                children = [int(pid) for pid in file.read().split()]
        except OSError:
            return
        mains = {unit.pid: unit for unit in units}
        for pid in children:
            main = mains.get(pid)
            # A pid that was reaped may be that of an adopted process now.
            if main is not None and not main.act_at:
                continue
            owner = self._owners.get(pid) or _owner(pid, mains)
            if owner is not None:
                self._owners[pid] = owner
                self._found.setdefault(owner, []).append(pid)

    def of(self, unit: UnitProcess) -> List[int]:
        """Return the pids of the adopted processes of a unit, as `find` listed them."""
        if not self._listed:
            return processes.group(unit.pid)
        return self._found.get(unit, [])

    def end(self, unit: UnitProcess, now: float) -> bool:
        """
        Do the next step to end what a unit left running; return whether it is over.

        *now* is the monotonic time. The next step is due at `unit.act_at`.
        """
        left = self.of(unit)
        if not left or now >= unit.give_up_at:
            return True
        if now >= unit.act_at:
            family = _family(left)
            if not unit.sent:
                unit.survivors = [processes.command(pid) for pid in family]
                unit.sent = signal.SIGTERM
                unit.act_at = now + GRACE
                processes.terminate(family)
            else:
                unit.sent = signal.SIGKILL
                unit.act_at = now + AGAIN
                processes.send(signal.SIGKILL, family)
        return False


def _family(pids: List[int]) -> List[int]:
    """Return *pids* and the processes that descend from them."""
    listed = processes.all_processes()
    ended = {process.pid for process in listed if process.ended}
    found = [pid for pid in pids if pid not in ended]
    for pid in pids:
        found += [one.pid for one in processes.descendants(pid, listed)]
    return found


def _owner(pid: int, mains: Dict[int, UnitProcess]) -> Optional[UnitProcess]:
    """
    Return the unit that has started an adopted process, None if it is not known.

    It shows in the session; if the process has its own, in the environment; if it has
    overwritten that, in the CPUs to which the unit was bound.
    """
    try:
        session = os.getsid(pid)
    except OSError:
        return None
    if session in mains:
        return mains[session]
    number = processes.variable(pid, b"ONEBOX_UNIT")
    for unit in mains.values():
        if number == b"%d" % unit.unit.number:
            return unit
    return _by_cpus(pid, mains)


def _by_cpus(pid: int, mains: Dict[int, UnitProcess]) -> Optional[UnitProcess]:
    """
    Return the unit that has run on the CPUs of a process, None if there is none.

    If an ended and a running unit have had the same CPUs, the process belongs to the
    running one, unless it is older.
    """
    if len(mains) == 1:
        return next(iter(mains.values()))
    try:
        cpus = os.sched_getaffinity(pid)
    except (OSError, AttributeError):
        return None
    found = [unit for unit in mains.values() if unit.cpus == cpus]
    ended = [unit for unit in found if unit.act_at]
    running = [unit for unit in found if not unit.act_at]
    if running and (not ended or _start_time(pid) >= _start_time(running[0].pid)):
        return running[0]
    return max(ended, key=lambda unit: unit.began, default=None)


def _start_time(pid: int) -> int:
    """Return when a process was started, in ticks since boot, 0 if it has ended."""
    stat = read("/proc/%d/stat" % pid)
    fields = stat[stat.rfind(b")") + 2 :].split()
    return int(fields[19]) if len(fields) > 19 else 0
