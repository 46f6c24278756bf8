"""Follow the job, or print the log of a finished one."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from onebox.boxes import bring_up
from onebox.errors import JobFailed, Lost, UsageError
from onebox.jobs import client, follow, history, log, receipt, run_history

if TYPE_CHECKING:
    from onebox.context import BoxContext


def perform(context: BoxContext) -> None:
    """
    Follow the job from where the local log ends; its exit code is ours.

    A finished job's log is printed whole, also when its box is gone.
    """
    if context.box is None:
        past = history.last(context)
        if past is not None:
            _replay(context, past)
            return
    box = bring_up.ready(context)
    answer = client.latest(context)
    if answer is None:
        raise UsageError(f"no job has run on {context.title} yet", next="inv run")
    job_id = answer.job
    path = client.log_path(context, job_id)
    shown = 0
    with suppress(FileNotFoundError):
        shown = log.replay(path, context.screen.output, context.screen.output_gone)
    context.doing, context.job_state = "run", "started"
    told = run_history.read(context)
    of_run = told.id if told is not None and told.has(job_id) else job_id
    record = follow.watch(context, box, job_id, run=of_run, shown=shown)
    receipt.keep(context, box, job_id, record)
    run_history.seen(context, job_id, record)
    context.screen.note("then: inv fetch teardown")
    if record.code:
        raise JobFailed(record.code)


def _replay(context: BoxContext, past: history.FinishedJob) -> None:
    """
    Print a job's log as it is kept here; its exit code is ours.

    Raises:
        Lost: Nothing here says how it ended.
    """
    screen = context.screen
    screen.note(
        f"there is no box {context.title}: job {past.job}, from "
        f"{client.log_place(context, past.job)}"
    )
    log.replay(past.log, screen.output, screen.output_gone)
    screen.close_line()
    if past.code is None:
        raise Lost(f"job {past.job}: {past.how}", next="inv run")
    screen.line("run", "failed" if past.code else "done", past.spent, past.how)
    if past.code:
        raise JobFailed(past.code)
