"""
The state of jobs, read from their directories.

A job's state is never stored. It follows from the exit record and from the lock that
the job's supervisor holds, so any process can read it at any time.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
from typing import Any, Dict, List, NamedTuple, Optional

from .. import processes
from ..box import BoxConfig, is_locked, replace_file
from ..box import read as read_file
from . import engine, exit_record
from .engine import JobState

JOB = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
GRACE = 30.0


class Start(NamedTuple):
    """
    The start of a job.

    *pid* is the supervisor's process id, *boot_id* the boot in which the job started,
    and *at* the start time in seconds since the epoch.
    """

    pid: int
    boot_id: str
    at: float


class StopOrder(NamedTuple):
    """
    An order to stop a job.

    *cause* goes into the exit record. *grace* is the time in seconds between SIGTERM
    and SIGKILL; None means the grace that the job was started with.
    """

    cause: str
    grace: Optional[float] = None


def latest(box: BoxConfig) -> Optional[str]:
    """Return the id of the job that was started last, None if there was no job."""
    return max(jobs(box), key=lambda job: _start_time(box, job), default=None)


def next_start(box: BoxConfig, now: float) -> float:
    """
    Return the start time of a new job.

    It is *now*. If the clock went back, it is instead a time later than the start of
    every job.
    """
    return max([now, *(_start_time(box, job) + 0.001 for job in jobs(box))])


def first_start(box: BoxConfig) -> int:
    """
    Return when the first job was started, or 0 if there was no job.

    The time is a file's modification time in nanoseconds since the epoch.
    """
    moments = []
    for job in jobs(box):
        with contextlib.suppress(OSError):
            st = os.stat(box.path("jobs", job, "started.json"))
            moments.append(st.st_mtime_ns)
    return min(moments, default=0)


def running(box: BoxConfig) -> Optional[str]:
    """Return the id of the job that is running, None if no job is running."""
    for job in jobs(box):
        # Most jobs have ended. The existence of the exit record is enough to see that,
        # so the record is not read.
        ended = os.path.exists(box.path("jobs", job, exit_record.NAME))
        if not ended and read(box, job).state == "running":
            return job
    return None


def order_stop(box: BoxConfig, job: str, order: StopOrder) -> None:
    """Order the supervisor of a job to stop the job, unless the job has ended."""
    directory = box.path("jobs", job)
    start = read_start(directory)
    if read(box, job).state != "running" or not start:
        return
    elsewhere = engine.of(box)
    if elsewhere is not None or start.boot_id == box.boot_id:
        # On a full disk the order cannot be written, but SIGTERM still ends the job.
        with contextlib.suppress(OSError):
            data = json.dumps(order._asdict()).encode("ascii")
            replace_file(os.path.join(directory, "cancel"), data, sync=False)
        if elsewhere is not None:
            elsewhere.terminate(box, job)
        else:
            processes.send(signal.SIGTERM, [start.pid])


def read_stop_order(directory: str) -> StopOrder:
    """
    Return the last stop order in a job's *directory*.

    The supervisor reads it after a SIGTERM. If there is no order, a shutdown has sent
    the SIGTERM, and the returned order has the cause "poweroff".
    """
    if not os.path.exists(os.path.join(directory, "cancel")):
        return StopOrder("poweroff")
    order = _load(directory, "cancel")
    grace = order.get("grace")
    return StopOrder(
        str(order.get("cause", "cancel")), None if grace is None else float(grace)
    )


def read(box: BoxConfig, job: str) -> JobState:
    """Return the state of a job."""
    directory = box.path("jobs", job)
    if not os.path.isdir(directory) or not JOB.fullmatch(job):
        if box.scheduler and not os.path.exists(box.path("box.json")):
            # The shared filesystem is away, so nothing is known.
            return JobState("running")
        return JobState("none")
    try:
        record = exit_record.read(directory)
        elsewhere = engine.of(box) if record is None else None
        if elsewhere is not None:
            return elsewhere.state(box, job)
        if record is None and is_locked(os.path.join(directory, "lock")):
            return JobState("running")
        # After the record was looked for, the supervisor may have published it and then
        # released its lock. So the record is read again.
        record = record or exit_record.read(directory)
    except exit_record.Damaged as damage:
        return JobState("lost", why="exit record damaged: %s" % damage)
    if record is None:
        start = read_start(directory)
        same_boot = start is not None and start.boot_id == box.boot_id
        return JobState("lost", why="supervisor died" if same_boot else "rebooted")
    if record.job != job:
        return JobState("lost", why="exit record damaged: it is another job's")
    return JobState("exited", record)


def jobs(box: BoxConfig) -> List[str]:
    """Return the ids of all jobs, in no particular order."""
    try:
        names = os.listdir(box.path("jobs"))
    except FileNotFoundError:
        return []
    return [name for name in names if JOB.fullmatch(name)]


def grace(box: BoxConfig, job: str) -> float:
    """Return the seconds that a job has between SIGTERM and SIGKILL."""
    return float(_load(box.path("jobs", job), "spec.json").get("cancel_grace", GRACE))


def read_start(directory: str) -> Optional[Start]:
    """
    Return the recorded start of a job.

    Return None if the record of the start is missing or damaged.
    """
    start = _load(directory, "started.json")
    try:
        return Start(int(start["pid"]), str(start["boot_id"]), float(start["at"]))
    except (KeyError, ValueError, TypeError):
        return None


def strays(box: BoxConfig, job: str) -> List[int]:
    """Return the pids of the processes whose environment names this box and job."""
    return processes.with_variables("ONEBOX_JOB=" + job, "ONEBOX_BOX=" + box.id)


def _start_time(box: BoxConfig, job: str) -> float:
    start = read_start(box.path("jobs", job))
    return start.at if start else 0.0


def _load(directory: str, name: str) -> Dict[str, Any]:
    """
    Return the JSON object in a file.

    Return {} if the file is missing or contains no JSON object.
    """
    try:
        value = json.loads(read_file(os.path.join(directory, name)))
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
