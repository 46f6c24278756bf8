"""End a job that Slurm runs, or that waits in its queue."""

from __future__ import annotations

import time

from ..box import BoxConfig
from ..jobs import job_state, log_stream
from ..protocol import Channel, Refused
from . import queue_state, submitted
from .scheduler import SchedulerError, scheduler_of

# After the grace of a job, its supervisor has this many seconds to end it. Then Slurm
# ends it.
LATE = 30.0


def terminate(box: BoxConfig, job: str) -> None:
    """
    Send SIGTERM to the supervisor of a job, or take the job out of the queue.

    Raises `Refused` if the controller does not answer: the job goes on then.
    """
    scheduler = scheduler_of(box)
    try:
        for id in {one.id for one in submitted.queued(box, job)}:
            # Of a job array, some tasks may wait and others run.
            scheduler.cancel("--state=PENDING", id)
            scheduler.cancel("--signal=TERM", "--batch", id)
    except SchedulerError as error:
        raise Refused("scheduler", "Slurm cannot stop it now: %s" % error) from error
    queue_state.forget(job)


def wait_until_ended(channel: Channel, box: BoxConfig, job: str) -> None:
    """Wait until a job has ended after `terminate`; kill it if it does not end."""
    kill_at = time.monotonic() + job_state.grace(box, job) + LATE
    while job_state.read(box, job).state == "running":
        log_stream.listen(channel, box, 0.5)
        queue_state.forget(job)
        if time.monotonic() > kill_at:
            kill(box, job)
            kill_at = time.monotonic() + LATE


def kill(box: BoxConfig, job: str) -> None:
    """Make Slurm end a job, with all its processes. Raises `Refused`."""
    submitted.forget_plan(box.path("jobs", job))
    try:
        ids = sorted({one.id for one in submitted.queued(box, job)})
        if ids:
            scheduler_of(box).cancel(*ids)
    except SchedulerError as error:
        raise Refused("scheduler", "Slurm cannot stop it now: %s" % error) from error
    queue_state.forget(job)
