"""Fetch the outputs of a box's last job, before anything is written over them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onebox.jobs import client
from onebox.providers.base import Box
from onebox.remote.answers import JobStatus
from onebox.stages import fetch

if TYPE_CHECKING:
    from onebox.context import BoxContext


def fetch_outputs(
    context: BoxContext, box: Box, *, only: bool = False
) -> JobStatus | None:
    """
    Fetch the log and the outputs of the last job, unless they are here.

    Args:
        only: A stage works alone: of a job that failed, leave the outputs there.

    Returns:
        The status of that job, None if none has run on this box.

    Raises:
        UsageError: The job still runs.

        OutputsHeld: Its outputs, or files beside them, cannot all be brought here.
    """
    record = context.store.record
    before = client.latest(context)
    if before is None or before.job.startswith("image-"):
        return None
    client.refuse_running(context, before)
    client.bring_log(context, box, before)
    well = before.record is not None and not before.record.code
    if record.fetched or record.discarded or (only and not well):
        return before
    context.screen.note(f"outputs of the earlier job {before.job} first")
    into = context.root / record.job_into if record.job_into else context.usual_into
    lost = before.state == "lost"
    with context.fetching_into(str(into)):
        fetch.perform(context, started_by="run", partial=lost, ended=before.record)
    context.fetched_earlier = before.job
    return before
