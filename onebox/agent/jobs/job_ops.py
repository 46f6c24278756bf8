"""The requests about jobs: start, status, follow and cancel."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import sys
import time
from typing import Any, Dict, Iterator, List, Optional, Tuple

from .. import processes
from ..box import BoxConfig
from ..protocol import Channel, Refused
from ..units import progress as unit_progress
from . import (
    engine,
    job_request,
    job_state,
    log_stream,
    log_times,
    metrics,
    notification,
    supervisor,
)
from .job_state import StopOrder


def start(channel: Channel, box: BoxConfig, request: Dict[str, Any]) -> Dict[str, Any]:
    """
    Start a job, unless it was started before.

    Raises `Refused` while another job runs.
    """
    job = str(request.get("job"))
    if not job_state.JOB.fullmatch(job):
        raise Refused("argument", "a job cannot be called %r" % job)
    plan, elsewhere = job_request.plan(box, job, request), engine.of(box)
    os.makedirs(box.path("jobs"), mode=0o700, exist_ok=True)
    with _start_lock(box) as guard:
        existing = job_state.jobs(box)
        if job not in existing:
            _make_room(channel, box, existing)
            _make_directories(box, request)
            if elsewhere is not None:
                elsewhere.prepare(box, plan)
            else:
                supervisor.detach(box, plan, guard)
        if elsewhere is not None:
            # An earlier call may have been interrupted before the engine had the job.
            elsewhere.submit(box, job)
    answer = {"job": job, "state": job_state.read(box, job).state}
    if elsewhere is not None:
        answer["engine_id"] = elsewhere.id(box, job)
    return answer


def status(channel: Channel, box: BoxConfig, request: Dict[str, Any]) -> Dict[str, Any]:
    """Return the status of the requested job, or of the latest job if none is named."""
    job = request.get("job")
    return _status(box, job_state.latest(box) if job is None else str(job))


def follow(channel: Channel, box: BoxConfig, request: Dict[str, Any]) -> Dict[str, Any]:
    """
    Send a job's log from the requested offset on, until the job has ended.

    The log is sent as it grows. If the request has `wait` = false, only the log up to
    now is sent. Return the status of the job, and the marks of its log (`log_times`).
    """
    job = existing_job(box, request)
    offset, wait = request.get("offset", 0), request.get("wait", True)
    follower = notification.follow(box.path("jobs", job)) if wait else -1
    fd = os.open(box.path("jobs", job, "log"), os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size
        # A client may have received the whole log before a power cut shortened it. So
        # if the job has ended, an offset beyond the end of the log is accepted.
        limit = size if job_state.read(box, job).state == "running" else sys.maxsize
        if not isinstance(offset, int) or not 0 <= offset <= limit:
            raise Refused("offset", "the log ends at %d, not at %r" % (size, offset))
        os.lseek(fd, min(offset, size), os.SEEK_SET)
        log_stream.stream(channel, box, job, fd, None if wait else size)
    finally:
        os.close(fd)
        if wait:
            os.close(follower)
    return dict(_status(box, job), marks=log_times.marks(box.path("jobs", job)))


def cancel(channel: Channel, box: BoxConfig, request: Dict[str, Any]) -> Dict[str, Any]:
    """Stop a job and all its processes; return its status when they have ended."""
    job = existing_job(box, request)
    job_state.order_stop(box, job, StopOrder(str(request.get("cause", "cancel"))))
    elsewhere = engine.of(box)
    if elsewhere is not None:
        elsewhere.wait_until_ended(channel, box, job)
    while job_state.read(box, job).state == "running":
        log_stream.listen(channel, box, 0.02)
    # The supervisor may have died after it received the order. Then the processes of
    # the job are ended here.
    if job_state.read(box, job).state == "lost":
        _end_strays(channel, box, job, job_state.grace(box, job))
    return _status(box, job)


def claim(channel: Channel, box: BoxConfig, request: Dict[str, Any]) -> Dict[str, Any]:
    """Return whether the client has to notify of the job's end; see `notification`."""
    job = existing_job(box, request)
    return {"claimed": notification.claim(box.path("jobs", job))}


OPS = {
    "start": start,
    "job": status,
    "follow": follow,
    "cancel": cancel,
    "claim": claim,
}


def _status(box: BoxConfig, job: Optional[str]) -> Dict[str, Any]:
    """
    Return the status of *job*, for example its state, exit record and latest sample.

    The state is "none" if *job* is None.
    """
    elsewhere = engine.of(box)
    now = job_state.read(box, job) if job else engine.JobState("none")
    directory = box.path("jobs", job or "")
    begun = job_state.read_start(directory)
    sample = metrics.latest(directory)
    return {
        "job": job,
        "state": now.state,
        "record": now.record._asdict() if now.record else None,
        "why": now.why,
        "alive": now.state == "lost" and bool(job_state.strays(box, str(job))),
        "started": begun.at if begun else None,
        "log_bytes": _size_and_age(directory, "log")[0],
        "sample": sample._asdict() if sample else None,
        "units": unit_progress.read(directory),
        "heartbeat_age": _size_and_age(directory, "heartbeat")[1],
        "waiting": elsewhere.waiting(box, job) if elsewhere and job else "",
        "engine_id": elsewhere.id(box, job) if elsewhere and job else "",
    }


def _size_and_age(directory: str, name: str) -> Tuple[int, Optional[float]]:
    """
    Return a file's size in bytes and its age in seconds.

    Return (0, None) if the file does not exist.
    """
    try:
        stat = os.stat(os.path.join(directory, name))
    except OSError:
        return 0, None
    return stat.st_size, max(0.0, time.time() - stat.st_mtime)


def existing_job(box: BoxConfig, request: Dict[str, Any]) -> str:
    """
    Return the id of the requested job, or of the latest job if none is named.

    Raises `Refused` if there is no such job.
    """
    job = request.get("job")
    if job is None:
        job = job_state.latest(box)
    if job is None or job_state.read(box, str(job)).state == "none":
        raise Refused("job", "there is no job %s on this box" % (job or "yet"))
    return str(job)


# Starting a job


@contextlib.contextmanager
def _start_lock(box: BoxConfig) -> Iterator[int]:
    """
    Hold the lock that lets only one client at a time start a job.

    Yield the lock's descriptor.
    """
    path = box.path("jobs", ".lock")
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
        except OSError as error:
            # Some shared filesystems have no locks. Two clients of one owner that start
            # a job at the same moment are prevented on their own machine.
            if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
                raise
        yield fd
    finally:
        os.close(fd)


def _make_room(channel: Channel, box: BoxConfig, existing: List[str]) -> None:
    """
    End the processes of lost jobs, and remove the directories of failed starts.

    Raises `Refused` if another job runs.
    """
    busy = job_state.running(box)
    if busy:
        raise Refused("busy", "job %s is running" % busy)
    for name in os.listdir(box.path("jobs")):
        if name.startswith(".new-"):
            _discard(box.path("jobs", name))
    for job in existing:
        if job_state.read(box, job).state == "lost":
            elsewhere = engine.of(box)
            if elsewhere is not None:
                elsewhere.kill(box, job)
            _end_strays(channel, box, job, 0.0)


def _make_directories(box: BoxConfig, request: Dict[str, Any]) -> None:
    """
    Create the work directory and the output folders.

    Raises `Refused` if a folder is outside of the work directory or cannot be created.
    """
    for name in [".", *request.get("outputs", [])]:
        path = os.path.normpath(str(name))
        if os.path.isabs(path) or path.split("/")[0] == "..":
            raise Refused("path", "%s is not inside the work directory" % name)
        try:
            os.makedirs(os.path.join(box.work, path), exist_ok=True)
        except OSError as error:
            raise Refused("path", "%s: %s" % (name, error.strerror)) from error


def _discard(directory: str) -> None:
    """Remove the directory of a supervisor that died before its job started."""
    with contextlib.suppress(OSError):
        for name in os.listdir(directory):
            os.unlink(os.path.join(directory, name))
        os.rmdir(directory)


def _end_strays(channel: Channel, box: BoxConfig, job: str, grace: float) -> None:
    """
    End the processes of a job whose supervisor has died.

    The processes receive SIGTERM. After *grace* seconds, those that still run receive
    SIGKILL.
    """
    end = time.monotonic() + grace
    left = job_state.strays(box, job)
    processes.terminate(left)
    while left and time.monotonic() < end + supervisor.UNKILLABLE:
        if time.monotonic() >= end:
            processes.send(signal.SIGKILL, left)
        log_stream.listen(channel, box, 0.05)
        left = job_state.strays(box, job)
