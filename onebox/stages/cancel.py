"""Stop the job on the box."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onebox.boxes import bring_up
from onebox.jobs import client, follow, run_history
from onebox.remote.answers import JobStatus

if TYPE_CHECKING:
    from onebox.context import BoxContext


def perform(context: BoxContext) -> None:
    """Stop the job: TERM, the grace time, KILL; return when it has ended."""
    box = bring_up.ready(context)
    answer = client.latest(context)
    if answer is None or not answer.runs:
        context.screen.line("cancel", "done", "up to date", "no job is running")
        return
    with context.screen.stage("cancel") as line:
        line.doing(
            f"{answer.job}: TERM, then up to {context.settings.run.cancel_grace:g} s"
        )
        ended = context.resuming(
            lambda channel: channel.ask("cancel", job=answer.job, cause="cancel"), box
        )
        status = JobStatus.parse(ended, answer.job)
        record = client.fate(status)
        run_history.seen(context, status.job, record)
        line.end("", f"{answer.job}: {follow.describe(record)}")
    context.screen.note("then: inv fetch teardown")
