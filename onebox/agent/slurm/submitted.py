"""
Submit a job to Slurm; the job's directory is complete before Slurm hears of it.

`sbatch` can accept a job although its answer is lost, so it is not idempotent. The name
of the job in Slurm contains the box and the job, and a job whose directory is gone ends
at once. So a submission can be repeated after any interruption.

If `sbatch` fails, the job is withdrawn, unless it has started nevertheless. Both begin
with a decision, and only the first one counts: see `decision`. So a job that has
started is never withdrawn, and no start comes after a withdrawal. What a withdrawal
does next can be interrupted: an agent that finds a withdrawn job finishes it.

After a failure of its controller Slurm can start a job a second time, also one that has
ended, and it can give its id to another job (seen with 22.05). The second start finds
the decision of the first.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shlex
import sys
import time
from typing import List, Optional, Set

from ..box import BoxConfig, sync_folder
from ..box import read as read_file
from ..folders.removal import remove
from ..jobs import durable, exec, exit_record, job_state, stored_plan
from ..protocol import Refused
from ..units import plan as unit_plan
from ..units import progress as unit_progress
from ..units import share
from . import array, decision
from .scheduler import PREFIX, QueuedJob, SchedulerError, Unreachable, scheduler_of

# The id of the job in Slurm.
ID = "slurm.json"
# The exit code of a start that has not run the job.
DIED = 75
# What the batch script prints, such as a missing Python.
OUTPUT = "slurm.log"
# Slurm sends SIGTERM this many seconds before the time limit, at least. Its manual says
# that the signal may come up to a minute earlier or later.
EARLIEST = 60


def job_name(box: BoxConfig, job: str) -> str:
    """Return the name of a job in Slurm, which no other job has."""
    return "%s%s-%s" % (PREFIX, box.id, job)


def comment(box: str) -> str:
    """Return the comment that the jobs of a box have in Slurm."""
    return "onebox " + box


def queued(box: BoxConfig, job: str) -> List[QueuedJob]:
    """
    Return the entries of a job in the queue.

    If no job there has its name, the job with its id is taken, as long as that has the
    box's folder and is no other job of onebox: the user, or a plugin of the cluster,
    may have changed the name.

    Raises SchedulerError.
    """
    scheduler = scheduler_of(box)
    found = scheduler.queue("--name", job_name(box, job))
    id = slurm_id(box.path("jobs", job))
    if found or not id:
        return found
    return [
        one
        for one in scheduler.queue("--jobs", id)
        if one.folder == box.work and not one.name.startswith(PREFIX)
    ]


def slurm_id(directory: str) -> str:
    """Return the id in Slurm of the job in *directory*, "" if it is unknown."""
    try:
        return str(json.loads(read_file(os.path.join(directory, ID)))["id"])
    except (ValueError, KeyError, TypeError):
        return ""


def slurm_ids(jobs: str) -> Set[str]:
    """Return the known ids in Slurm of the jobs in the folder *jobs* of a box."""
    try:
        names = os.listdir(jobs)
    except OSError:
        return set()
    return {slurm_id(os.path.join(jobs, name)) for name in names} - {""}


def prepare(box: BoxConfig, plan: exec.JobPlan) -> None:
    """Create the directory of a job. Raises OSError."""
    _remove_unfinished(box)
    fresh = _fresh(box, plan.job)
    os.mkdir(fresh, 0o700)
    durable.save_json(fresh, "spec.json", plan.spec)
    if plan.units:
        durable.save(fresh, unit_plan.NAME, plan.units)
        os.mkdir(os.path.join(fresh, share.FOLDER), 0o700)
        unit_progress.prepare(fresh, array.first_progress(box, fresh))
    # No process of this machine belongs to the job, so the start names none.
    start = job_state.Start(0, "", job_state.next_start(box, time.time()))
    durable.save_json(fresh, "started.json", start._asdict())
    for name in ("log", OUTPUT):
        durable.save(fresh, name, b"")
    exit_record.prepare(fresh)
    durable.save(fresh, stored_plan.NAME, stored_plan.encode(plan))
    os.rename(fresh, box.path("jobs", plan.job))
    sync_folder(box.path("jobs"))


def submit(box: BoxConfig, job: str) -> None:
    """
    Submit a job whose directory is prepared, unless Slurm has it already.

    Raises `Refused` if Slurm refuses the job, or has refused it before. The directory
    is removed then.
    """
    directory = box.path("jobs", job)
    if is_withdrawn(directory):
        finish_withdrawal(box, job)
        raise Refused("start", "Slurm has refused the job, or did not answer")
    if slurm_id(directory):
        return
    scheduler = scheduler_of(box)
    try:
        known = scheduler.queue("--name", job_name(box, job))
        id = known[0].id if known else ""
        if not id and has_begun(directory):
            # It was submitted before, and has ended already.
            return
        if not id:
            shape = array.shape(box, directory)
            if shape is not None:
                durable.save_json(directory, array.SIZE, {"tasks": shape.tasks})
            options = _options(box, job, shape)
            id = scheduler.submit(options, _script(box, job, shape is not None))
    except SchedulerError as error:
        # sbatch can fail although Slurm has accepted the job, and it may run already.
        if not _withdraw(box, job):
            return
        what = (
            "does not answer" if isinstance(error, Unreachable) else "refuses the job"
        )
        raise Refused("start", "Slurm %s: %s" % (what, error)) from error
    durable.save_json(directory, ID, {"id": id})


def has_begun(directory: str) -> bool:
    """Return whether the job, or a task of it, has started on a node."""
    return decision.read(directory) == decision.STARTED


def claim(directory: str) -> bool:
    """
    Claim a job for a start of it, or of one of its tasks.

    Return whether this is the first claim. Raises OSError if the job was withdrawn.
    """
    found, is_own = decision.decide(directory, decision.STARTED)
    if found != decision.STARTED:
        raise OSError(errno.ECANCELED, "the job was withdrawn", directory)
    return is_own


def claim_share(directory: str, own: str) -> bool:
    """
    Claim a job, and the directory *own* of one of its tasks, which is created.

    Return whether this is the first claim of it. Raises OSError if the job was
    withdrawn.
    """
    claim(directory)
    # If it exists, its decision tells whether another start was here.
    with contextlib.suppress(FileExistsError):
        os.mkdir(own, 0o700)
    return claim(own)


def is_withdrawn(directory: str) -> bool:
    """Return whether a job was withdrawn, so that it will never start."""
    return decision.read(directory) == decision.WITHDRAWN


def _options(box: BoxConfig, job: str, shape: Optional[array.Shape]) -> List[str]:
    """Return the options of sbatch for a job, whose units have the shape *shape*."""
    directory, scheduler = box.path("jobs", job), box.scheduler
    grace = int(job_state.grace(box, job))
    cpus, memory = int(scheduler.get("cpus", 1)), int(scheduler.get("memory", 0))
    output = OUTPUT
    options = []
    if shape is not None:
        cpus, memory, output = shape.cpus, shape.memory, "slurm-%a.log"
        options = ["--array=0-%d%%%d" % (shape.tasks - 1, shape.at_once)]
    if memory:
        options.append("--mem=%dM" % max(memory >> 20, 1))
    return [
        "--job-name=" + job_name(box, job),
        "--comment=" + comment(box.id),
        "--chdir=" + box.work,
        "--output=" + os.path.join(directory, output),
        "--open-mode=append",
        "--signal=B:TERM@%d" % max(grace + 15, EARLIEST),
        "--nodes=1",
        "--ntasks=1",
        "--no-requeue",
        "--cpus-per-task=%d" % cpus,
        "--time=%d" % int(scheduler.get("minutes", 60)),
        *options,
        *map(str, scheduler.get("options", [])),
    ]


def _script(box: BoxConfig, job: str, is_array: bool) -> str:
    python = sys.executable or "python3"
    agent, mode = os.path.abspath(sys.argv[0]), "task" if is_array else "node"
    words = [python, "-I", "-S", agent, mode, box.path("jobs", job)]
    return "#!/bin/sh\nexec %s\n" % " ".join(map(shlex.quote, words))


def forget_plan(directory: str) -> None:
    """Remove the file that may contain secrets, because the job will not read it."""
    with contextlib.suppress(OSError):
        os.unlink(os.path.join(directory, stored_plan.NAME))


def _withdraw(box: BoxConfig, job: str) -> bool:
    """Withdraw a job, unless it has started; return whether it is withdrawn."""
    directory = box.path("jobs", job)
    # If the directory is gone, another agent has withdrawn the job.
    with contextlib.suppress(FileNotFoundError):
        if decision.decide(directory, decision.WITHDRAWN)[0] == decision.STARTED:
            return False
    finish_withdrawal(box, job)
    return True


def finish_withdrawal(box: BoxConfig, job: str) -> None:
    """Remove what is left of a job that was withdrawn; this can be repeated."""
    directory = box.path("jobs", job)
    forget_plan(directory)
    with contextlib.suppress(SchedulerError):
        scheduler_of(box).cancel("--name", job_name(box, job))
    gone = _fresh(box, job)
    # Another agent may finish it too.
    with contextlib.suppress(OSError):
        os.rename(directory, gone)
        remove(gone)


def _fresh(box: BoxConfig, job: str) -> str:
    """Return the path of a directory that is not yet, or no longer, that of a job."""
    return box.path("jobs", ".new-%s.%d" % (job, os.getpid()))


def _remove_unfinished(box: BoxConfig) -> None:
    """Remove what agents have left that died; the caller has the lock of a start."""
    for name in os.listdir(box.path("jobs")):
        if name.startswith(".new-"):
            remove(box.path("jobs", name))
