"""Fetch the outputs of a box's last job before a push or a job overwrites them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onebox.jobs import client
from onebox.providers.values import Box
from onebox.remote.answers import JobStatus
from onebox.stages import fetch

if TYPE_CHECKING:
    from onebox.context import BoxContext


def fetch_outputs(
    context: BoxContext, box: Box, *, only: bool = False
) -> JobStatus | None:
    """
    Fetch the log and the outputs of the last job, unless they were fetched.

    Args:
        only: Leave the outputs of a failed job on the box (`--only`).

    Returns:
        The status of that job, None if no job has run on this box.

    Raises:
        UsageError: The job still runs.

        OutputsHeld: Its outputs, or files beside them, cannot all be fetched.
    """
    record = context.store.record
    last_job = client.latest(context)
    if last_job is None or last_job.job.startswith("image-"):
        return None
    client.refuse_running(context, last_job)
    client.fetch_log(context, box, last_job)
    succeeded = last_job.record is not None and not last_job.record.code
    if record.fetched or record.discarded or (only and not succeeded):
        return last_job
    context.screen.note(f"fetching the outputs of the earlier job {last_job.job} first")
    into = context.root / record.job_into if record.job_into else context.usual_into
    with context.fetching_into(str(into)):
        fetch.perform(
            context,
            caller="run",
            partial=last_job.state == "lost",
            ended=last_job.record,
        )
    context.chain.fetched_earlier_job = last_job.job
    return last_job
