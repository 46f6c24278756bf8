"""
The state of a job that Slurm runs, as the login node sees it.

The supervisor runs on another node, so its lock and its process are not visible here.
What is visible: the files that it writes to the shared filesystem, and the answers of
Slurm. The files come first. Slurm is asked only if they do not show that the job runs.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any, Dict, List, NamedTuple, Optional

from ..box import BoxConfig
from ..jobs import exit_record, job_state, metrics
from ..jobs.engine import JobState
from ..jobs.exit_record import StoredExitRecord
from ..units import share
from . import array, submitted
from .scheduler import (
    WAITING,
    Ended,
    QueuedJob,
    SchedulerError,
    Unreachable,
    scheduler_of,
)

# The supervisor touches its heartbeat every 10 seconds. With a younger one the job
# runs, and Slurm is not asked. The clocks of the nodes may differ by some seconds.
FRESH = 25.0
# An answer of Slurm is kept for a tenth of the time since the job was submitted, within
# these limits (seconds): a long job is not asked for every few seconds.
SHORTEST, LONGEST = 1.0, 60.0
# A job that has just been submitted does not count as waiting for this long (seconds).
SOON = 4.0
# After a job has left the queue, its exit record may take this many seconds to become
# visible here, because of the caches of a shared filesystem.
VISIBLE = 6.0
# The cause of a job that ended without a record of the supervisor, by Slurm's state.
CAUSES = {
    "TIMEOUT": "deadline",
    "DEADLINE": "deadline",
    "OUT_OF_MEMORY": "oom",
    "PREEMPTED": "preempted",
    "CANCELLED": "cancel",
}
# The outcome of a job whose node failed is unknown. Of a job array it is known which
# units have a result.
OF_ARRAY = {**CAUSES, "NODE_FAIL": "node-failed"}
# The code of such a job, if Slurm does not tell the signal: SIGKILL if memory ran out,
# else SIGTERM.
SIGNALS = {"OUT_OF_MEMORY": 9}
# A job that waits for one of these reasons (squeue(1), "JOB REASON CODES") starts only
# if an administrator changes something.
NEVER = frozenset(
    (
        "AccountNotAllowed",
        "BadConstraints",
        "InvalidAccount",
        "InvalidQOS",
        "PartitionConfig",
        "PartitionDown",
        "PartitionInactive",
        "PartitionNodeLimit",
        "PartitionTimeLimit",
        "QOSNotAllowed",
    )
)


class _Answer(NamedTuple):
    """What Slurm has answered, and when (monotonic); *jobs* is None if it did not."""

    at: float
    jobs: Optional[List[QueuedJob]]
    problem: str = ""


_answers: Dict[str, _Answer] = {}


def read(box: BoxConfig, job: str) -> JobState:
    """
    Return the state of a job without an exit record.

    If Slurm knows how the job ended, an exit record is published for it. Without the
    controller nothing is known, so the job counts as running until it answers.
    """
    directory = box.path("jobs", job)
    if submitted.is_withdrawn(directory):
        submitted.finish_withdrawal(box, job)
        return JobState("none")
    if _is_fresh(directory) or array.is_alive(directory, _is_fresh):
        return JobState("running")
    if not array.has_ended(directory):
        queued = _queued(box, job)
        if queued is None or queued:
            return JobState("running")
    record = _late_record(directory)
    if record is None:
        record = _publish(box, job, directory)
    if isinstance(record, str):
        return JobState("lost", why=record)
    return JobState("exited", record)


def waiting(box: BoxConfig, job: str) -> str:
    """Return why a job does not run yet, as Slurm says it; "" if it runs or has run."""
    directory = box.path("jobs", job)
    start = job_state.read_start(directory)
    if submitted.has_begun(directory) or not start or time.time() - start.at < SOON:
        return ""
    if os.path.exists(os.path.join(directory, exit_record.NAME)):
        return ""
    queued = _queued(box, job)
    if queued is None:
        return "Slurm's controller does not answer"
    for one in queued:
        if one.state in WAITING and one.reason:
            why = "%s (%s)" % (one.state, one.reason) if one.reason else one.state
            if one.reason in NEVER:
                return why + ", so it may never start"
            return why + (", expected to start at %s" % one.start if one.start else "")
    return ""


def forget(job: str) -> None:
    """Forget what Slurm has answered about a job, so that it is asked again."""
    _answers.pop(job, None)


def _is_fresh(directory: str) -> bool:
    try:
        age = time.time() - os.stat(os.path.join(directory, "heartbeat")).st_mtime
    except OSError:
        return False
    return abs(age) < FRESH


def _queued(box: BoxConfig, job: str) -> Optional[List[QueuedJob]]:
    """Return the entries of a job in the queue, None if the controller is silent."""
    now = time.monotonic()
    known = _answers.get(job)
    if known is not None and now - known.at < _keep_for(box, job):
        return known.jobs
    try:
        answer = _Answer(now, submitted.queued(box, job))
    except SchedulerError as error:
        answer = _Answer(now, None, str(error))
    _answers[job] = answer
    return answer.jobs


def _keep_for(box: BoxConfig, job: str) -> float:
    start = job_state.read_start(box.path("jobs", job))
    age = time.time() - start.at if start else 0.0
    return min(max(age / 10, SHORTEST), LONGEST)


def _late_record(directory: str) -> Optional[StoredExitRecord]:
    """Wait until the exit record is visible here; return None if it stays missing."""
    end = time.monotonic() + VISIBLE
    while True:
        # To list a folder makes a client of NFS ask the server again.
        with contextlib.suppress(OSError):
            os.listdir(directory)
        with contextlib.suppress(exit_record.Damaged):
            record = exit_record.read(directory)
            if record is not None:
                return record
        # The record of an array is made from those of its tasks.
        comes = submitted.has_begun(directory) and not _is_array(directory)
        if time.monotonic() > end or not comes:
            return None
        time.sleep(0.2)


def _publish(box: BoxConfig, job: str, directory: str) -> Any:
    """
    Publish and return the exit record of a job that left none itself.

    Return a text if the outcome of the job is unknown.
    """
    id = submitted.slurm_id(directory)
    try:
        name = submitted.job_name(box, job)
        ended = scheduler_of(box).ended(id, name, box.work) if id else None
    except Unreachable as error:
        return "Slurm does not answer: %s" % error
    if _is_array(directory):
        return _publish_array(box, job, directory, ended)
    never_begun = not submitted.has_begun(directory)
    if ended is not None and never_begun and ended.code == submitted.DIED:
        # The agent is in the root too, and it has run.
        return "it ended before it began: its folder could not be used on the node"
    if ended is not None and never_begun and ended.state in ("FAILED", "COMPLETED"):
        return (
            "Slurm says %s, but the job never saw its folder: is [slurm] root on a "
            "filesystem that all nodes see?" % ended.state
        )
    if ended is None:
        return "neither Slurm nor the job's own record knows how it ended"
    if ended.state == "NODE_FAIL":
        return "its node failed (NODE_FAIL)"
    if ended.code == submitted.DIED:
        return (
            "Slurm started it again after a failure of its controller, and the first "
            "start has ended without a record"
        )
    if ended.state not in CAUSES:
        return "Slurm says %s, but the job has left no exit record" % ended.state
    return _published(directory, _record(box, job, directory, ended))


def _publish_array(
    box: BoxConfig, job: str, directory: str, ended: Optional[Ended]
) -> Any:
    """Publish the record of a job array; units without a result are left."""
    if not submitted.slurm_id(directory) and not submitted.has_begun(directory):
        return "it is not known whether Slurm has had it"
    cause = OF_ARRAY.get(ended.state, "") if ended else "forgotten"
    with contextlib.suppress(OSError):
        array.write_log(directory)
    return _published(directory, array.record_of(job, directory, cause))


def _is_array(directory: str) -> bool:
    return os.path.isdir(os.path.join(directory, share.FOLDER))


def _published(directory: str, record: StoredExitRecord) -> StoredExitRecord:
    """Publish a record, unless there is one already; return the one that is there."""
    with contextlib.suppress(FileExistsError):
        exit_record.publish(directory, record)
    submitted.forget_plan(directory)
    with contextlib.suppress(exit_record.Damaged):
        return exit_record.read(directory) or record
    return record


def _record(box: BoxConfig, job: str, directory: str, ended: Ended) -> StoredExitRecord:
    signum = ended.signal or (0 if ended.code else SIGNALS.get(ended.state, 15))
    start = job_state.read_start(directory)
    started = start.at if start else time.time()
    sample = metrics.latest(directory)
    order = job_state.read_stop_order(directory)
    cancelled = os.path.exists(os.path.join(directory, "cancel"))
    return StoredExitRecord(
        job=job,
        code=128 + signum if signum else ended.code,
        signal=signum or None,
        cause=order.cause if cancelled else CAUSES[ended.state],
        log_bytes=os.stat(os.path.join(directory, "log")).st_size,
        boot_id=box.boot_id,
        started=started,
        ended=max(_last_seen(directory), started),
        seconds=0.0,
        box_memory_peak=sample.memory if sample and sample.memory else 0,
    )


def _last_seen(directory: str) -> float:
    """Return the latest time at which the job has left a trace in its directory."""
    moments = []
    for name in ("heartbeat", "log"):
        with contextlib.suppress(OSError):
            moments.append(os.stat(os.path.join(directory, name)).st_mtime)
    return max(moments, default=time.time())
