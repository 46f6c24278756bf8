"""Follow the job, or print the log of a finished one."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from onebox.boxes import bring_up
from onebox.errors import JobFailed, Lost, UsageError
from onebox.jobs import finished_jobs, follow, log, receipt, remote_job, run_record

if TYPE_CHECKING:
    from onebox.context import BoxContext
    from onebox.jobs.receipt import Receipt


def perform(context: BoxContext) -> Receipt | None:
    """
    Print the job's output and follow it until the job ends.

    If the box is gone, the local log of its last job is printed.

    Returns:
        The job's receipt, None if it is missing or damaged.

    Raises:
        JobFailed: The job's exit code is not 0; it becomes that of `inv logs`.
    """
    if context.find_box() is None:
        finished = finished_jobs.latest(context)
        if finished is not None:
            _show_local_log(context, finished)
            return finished.receipt
    box = bring_up.wait_until_reachable(context)
    latest = remote_job.latest(context)
    if latest is None:
        raise UsageError(f"no job has run on {context.title} yet", next="inv run")
    job_id = latest.job
    path = remote_job.log_path(context, job_id)
    shown = 0
    with suppress(FileNotFoundError):
        shown = log.show_log(path, context.screen.output, context.screen.output_gone)
    context.chain.stage, context.chain.job_state = "run", "started"
    run = run_record.read(context)
    run_id = run.id if run is not None and run.has(job_id) else job_id
    record = follow.watch(context, box, job_id, run=run_id, shown=shown)
    receipt.keep(context, box, job_id, record)
    run_record.record_end(context, job_id, record)
    context.screen.note("then: inv fetch teardown")
    if record.code:
        raise JobFailed(record.code, job_id)
    return receipt.read(context.job_dir(job_id) / receipt.FILE)


def _show_local_log(context: BoxContext, finished: finished_jobs.FinishedJob) -> None:
    """
    Print the local log of a finished job.

    Raises:
        JobFailed: The job's exit code was not 0.

        Lost: The outcome of the job is not recorded on this machine.
    """
    screen = context.screen
    screen.note(
        f"there is no box {context.title}: job {finished.job}, from "
        f"{remote_job.log_name(context, finished.job)}"
    )
    log.show_log(finished.log, screen.output, screen.output_gone)
    screen.close_line()
    if finished.code is None:
        raise Lost(f"job {finished.job}: {finished.ending}", next="inv run")
    mark = "failed" if finished.code else "done"
    screen.print_stage("run", mark, finished.duration, finished.ending)
    if finished.code:
        raise JobFailed(finished.code, finished.job)
