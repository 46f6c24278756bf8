"""
What can be known about jobs from their directories, by anybody, at any time.

A job's state is never written down as such: it follows from its exit record
and from the lock that its supervisor holds.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import signal
from typing import Any, Dict, List, Optional, Tuple

from .. import box, processes
from ..box import Box
from . import exit_record

JOB = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
GRACE = 30.0


def latest(at: Box) -> Optional[str]:
    """Name the job that was started last, None if there has been none."""
    return max(
        jobs(at),
        key=lambda job: float(started(at.path("jobs", job)).get("at", 0)),
        default=None,
    )


def next_start(at: Box, now: float) -> float:
    """Return when a job starts, after all before it, whatever the clock says."""
    before = [float(started(at.path("jobs", job)).get("at", 0)) for job in jobs(at)]
    return max([now, *(moment + 0.001 for moment in before)])


def first_start(at: Box) -> int:
    """Return when the first job was started, by the disk's clock; 0 before that."""
    moments = []
    for job in jobs(at):
        with contextlib.suppress(OSError):
            st = os.stat(at.path("jobs", job, "started.json"))
            moments.append(st.st_mtime_ns)
    return min(moments, default=0)


def running(at: Box) -> Optional[str]:
    """Name the job that runs now, if one does."""
    for job in jobs(at):
        # Most have ended: one look at the file system is enough for those.
        ended = os.path.exists(at.path("jobs", job, exit_record.NAME))
        if not ended and state(at, job)[0] == "running":
            return job
    return None


def tell(at: Box, job: str, order: Dict[str, Any]) -> str:
    """
    Have a job end; return the state that it was in.

    *order* is the cause, and the seconds of grace if they are not the job's.
    """
    directory = at.path("jobs", job)
    now = state(at, job)[0]
    known = started(directory)
    if now == "running" and known.get("boot_id") == at.boot_id:
        fresh = os.path.join(directory, ".cancel.%d" % os.getpid())
        # On a full disk the cause is lost, but the job still ends.
        with contextlib.suppress(OSError):
            with open(fresh, "w", encoding="ascii") as file:
                json.dump(order, file)
            os.replace(fresh, os.path.join(directory, "cancel"))
        processes.send(signal.SIGTERM, [int(known["pid"])])
    return now


def state(at: Box, job: str) -> Tuple[str, Optional[Dict[str, Any]], str]:
    """Return the state, the exit record, and for a lost job the reason."""
    directory = at.path("jobs", job)
    if not os.path.isdir(directory) or not JOB.fullmatch(job):
        return "none", None, ""
    try:
        record = exit_record.read(directory)
        if record is None and _held(directory):
            return "running", None, ""
        # It may have been published between the two looks.
        record = record or exit_record.read(directory)
    except exit_record.Damaged as damage:
        return "lost", None, "exit record damaged: %s" % damage
    if record is None:
        rebooted = started(directory).get("boot_id") != at.boot_id
        return "lost", None, "rebooted" if rebooted else "supervisor died"
    if record.get("job") != job:
        return "lost", None, "exit record damaged: it is another job's"
    return "exited", record, ""


def jobs(at: Box) -> List[str]:
    """Name all jobs there have been, in no order."""
    try:
        names = os.listdir(at.path("jobs"))
    except FileNotFoundError:
        return []
    return [name for name in names if JOB.fullmatch(name)]


def grace(at: Box, job: str) -> float:
    """Return the seconds that a job gets to end by itself."""
    return float(_load(at.path("jobs", job), "spec.json").get("cancel_grace", GRACE))


def started(directory: str) -> Dict[str, Any]:
    """Return when a job was started, by which process, and in which boot."""
    return _load(directory, "started.json")


def strays(at: Box, job: str) -> List[int]:
    """Return what a job whose supervisor has died has left running."""
    return processes.marked("ONEBOX_JOB=" + job, "ONEBOX_BOX=" + at.id)


def _held(directory: str) -> bool:
    """Tell whether the supervisor lives: the kernel knows by its lock."""
    try:
        fd = os.open(os.path.join(directory, "lock"), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        # Shared, so that two who look at once do not take each other for it.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _load(directory: str, name: str) -> Dict[str, Any]:
    try:
        told = json.loads(box.read(os.path.join(directory, name)))
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}
