"""
Run a job on the node that Slurm has given it, with the same supervisor as on a box.

The supervisor is the batch script of the job. So Slurm's SIGTERM, before the time limit
or a preemption, reaches it first, and it stops the job as at a power-off.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from typing import Dict, Optional

from ..box import BoxConfig
from ..box import read as read_file
from ..jobs import durable, exec, exit_record, job_state, stored_plan
from ..jobs.node_supervisor import NodeSupervisor
from ..units import progress as unit_progress
from ..units import share
from . import submitted
from .scheduler import SchedulerError, scheduler_of

# The job gets these variables of the node, besides its own: what Slurm has given it,
# and where its temporary files go.
_OF_NODE = re.compile(
    rb"(SLURM_.*|SLURMD_.*|CUDA_VISIBLE_DEVICES|GPU_.*|ROCR_.*|ZE_.*|TMPDIR)",
    re.DOTALL,
)
# A second start waits this many seconds without a sign of the first one. After that,
# the first one has died. The heartbeat is renewed every 10 seconds.
SILENT = 120.0
# The time limit is the reason of a SIGTERM if at most this many seconds are left.
NEAR_LIMIT = 180.0


def run(root: str, directory: str) -> int:
    """
    Run the job in *directory* to its end, and return its exit code.

    If another start of the same job was here before, wait for that one.
    """
    box = BoxConfig.load(root)
    try:
        if not submitted.claim(directory):
            return _wait_for_first(directory)
    except OSError as error:
        # The job was withdrawn, or the shared filesystem is gone.
        sys.stderr.write("onebox: %s: %s\n" % (directory, error.strerror))
        return submitted.DIED
    path = os.path.join(directory, stored_plan.NAME)
    plan = stored_plan.decode(read_file(path))
    os.unlink(path)
    _supervise(box, plan, directory)
    return _code(directory)


def run_task(root: str, directory: str) -> int:
    """
    Run a task of the job array in *directory*: a share of the job's units, in turn.

    Return the exit code of the task.
    """
    box = BoxConfig.load(root)
    task = int(os.environ["SLURM_ARRAY_TASK_ID"])
    step = int(os.environ["SLURM_ARRAY_TASK_COUNT"])
    own = os.path.join(directory, share.FOLDER, str(task))
    try:
        if not submitted.claim_share(directory, own):
            return _wait_for_first(own)
    except OSError as error:
        sys.stderr.write("onebox: %s: %s\n" % (own, error.strerror))
        return submitted.DIED
    plan = stored_plan.decode(read_file(os.path.join(directory, stored_plan.NAME)))
    python, agent = sys.executable or "python3", os.path.abspath(sys.argv[0])
    words = [python, "-I", "-S", agent, "pool", own]
    plan = plan._replace(
        commands=[[os.fsencode(word) for word in words]], notify="", grace=plan.grace
    )
    durable.save_json(own, share.NAME, {"first": task, "step": step})
    durable.save(own, "log", b"")
    unit_progress.prepare(own)
    exit_record.prepare(own)
    _supervise(box, plan, own)
    return _code(own)


def _supervise(box: BoxConfig, plan: exec.JobPlan, directory: str) -> None:
    plan.environment.update(_of_node())
    _Supervisor(box, plan, directory).run()


class _Supervisor(NodeSupervisor):
    """The supervisor of a job, or of a task of a job array."""

    def cause_of(self, order: job_state.StopOrder) -> str:
        """Return the cause of an order to stop; without one, Slurm has sent SIGTERM."""
        # The order to a task of an array is in the directory of the job.
        order = job_state.read_stop_order(self.box.path("jobs", self.plan.job))
        return _cause(self.box) if order.cause == "poweroff" else order.cause


def _cause(box: BoxConfig) -> str:
    """Return why Slurm has sent SIGTERM: "deadline", "preempted" or "cancel"."""
    id = os.environ.get("SLURM_JOB_ID", "")
    scheduler = scheduler_of(box)
    with contextlib.suppress(SchedulerError):
        words = ["squeue", "--noheader", "--jobs", id, "--format", "%L|%r|%T"]
        left, _, why = scheduler.show(words).strip().partition("|")
        if "PREEMPT" in why.upper():
            return "preempted"
        seconds = _seconds(left)
        if seconds is not None and seconds <= NEAR_LIMIT:
            return "deadline"
    return "cancel"


def _seconds(text: str) -> Optional[float]:
    """Return the seconds in Slurm's "D-HH:MM:SS", None if it is something else."""
    days, _, rest = text.rpartition("-")
    parts = rest.split(":")
    if not all(part.isdigit() for part in parts) or (days and not days.isdigit()):
        return None
    total = 0.0
    for part in parts:
        total = total * 60 + int(part)
    return total + 86400 * int(days or 0)


def _of_node() -> Dict[bytes, bytes]:
    """Return the variables of the node that the job gets in addition."""
    found = {
        name: value for name, value in os.environb.items() if _OF_NODE.fullmatch(name)
    }
    # Other values than on the login node would confuse an `srun` of the job.
    found.pop(b"SLURM_EXPORT_ENV", None)
    return found


def _wait_for_first(directory: str) -> int:
    """
    Wait for the first start of this job, and return the job's exit code.

    If this start ended at once, Slurm would count the job as ended, and end its
    processes. Return `submitted.DIED` if the first start shows no sign of life.
    """
    sys.stderr.write("onebox: this job was started before; waiting for it\n")
    sys.stderr.flush()
    begun = time.time()
    while True:
        code = _code(directory)
        if code >= 0:
            return code
        try:
            seen = os.stat(os.path.join(directory, "heartbeat")).st_mtime
        except OSError:
            seen = 0.0
        if time.time() - max(seen, begun) > SILENT:
            return submitted.DIED
        time.sleep(2.0)


def _code(directory: str) -> int:
    """Return the exit code in the record of a job, -1 if there is none."""
    with contextlib.suppress(exit_record.Damaged):
        record = exit_record.read(directory)
        if record is not None:
            return record.code
    return -1
