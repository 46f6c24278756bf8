"""Stop the job on the box."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onebox.boxes import bring_up
from onebox.jobs import follow, job_facts, notify, remote_job, run_record
from onebox.remote.job_answers import JobStatus

if TYPE_CHECKING:
    from onebox.context import BoxContext


def perform(context: BoxContext) -> None:
    """
    Stop the job and wait until it has ended.

    The job gets a SIGTERM and, after the grace period, a SIGKILL.
    """
    box = bring_up.wait_until_reachable(context)
    latest = remote_job.latest(context)
    if latest is None or not latest.runs:
        context.screen.print_stage("cancel", "done", "up to date", "no job is running")
        return
    with context.screen.stage("cancel") as stage_line:
        grace = context.settings.run.cancel_grace
        stage_line.doing(f"{latest.job}: SIGTERM, then SIGKILL after {grace:g} s")
        answer = context.call_resuming(
            lambda channel: channel.request("cancel", job=latest.job, cause="cancel"),
            box,
        )
        status = JobStatus.parse(answer, latest.job)
        record = remote_job.exit_record(status)
        run_record.record_end(context, status.job, record)
        job_facts.note_end(context, status.job, record)
        stage_line.end("", f"{latest.job}: {follow.describe(record)}")
    notify.learned(context, box, status.job, record)
    context.screen.note("then: inv fetch teardown")
