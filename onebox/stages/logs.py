"""Follow the job, or print the log of a finished one."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.agent.file_names import printable
from onebox.boxes import bring_up, no_box
from onebox.errors import JobFailed, Lost, UsageError
from onebox.jobs import (
    finished_jobs,
    follow,
    history,
    job_facts,
    log,
    notify,
    receipt,
    remote_job,
    run_record,
)
from onebox.remote.job_answers import JobStatus, describe_waiting
from onebox.settings.units import parse_duration
from onebox.store.paths import JOB
from onebox.units import job as unit_job

if TYPE_CHECKING:
    from onebox.context import BoxContext
    from onebox.jobs.receipt import Receipt
    from onebox.providers.values import Box


@dataclass(frozen=True)
class Selection:
    """
    The part of the log that is printed.

    *tail* is a number of lines, and *since* a number of seconds up to now; None means
    no limit. *follow* means to wait for the end of a running job.
    """

    tail: int | None = None
    since: float | None = None
    follow: bool = True

    @classmethod
    def parse(cls, tail: str, since: str, *, follow: bool) -> Selection:
        """Return the selection that the flags mean. Raises UsageError."""
        lines = formatting.whole_number(tail)
        if tail and lines is None:
            raise UsageError(
                f"--tail: expected a number of lines, got {tail!r}",
                next="inv logs --tail=100",
            )
        try:
            seconds = parse_duration(since) if since else None
        except ValueError as error:
            raise UsageError(
                f'--since: expected a duration such as "10m" or "2 h", got {since!r}',
                next="inv logs --since=10m",
            ) from error
        return cls(lines, seconds, follow)

    @property
    def is_all(self) -> bool:
        """Return whether the whole log is printed and followed."""
        return self == Selection()


def perform(
    context: BoxContext,
    *,
    tail: str = "",
    since: str = "",
    follow: bool = True,
    job: str = "",
) -> Receipt | None:
    """
    Print the job's output and follow it until the job ends.

    If the box is gone, the local log of its last job is printed. If that was a `map` on
    several boxes, each of them has a log of its own.

    Args:
        tail: Print only so many of the last lines, and what follows. "" means all.

        since: Print only the output of this last time, such as "10m".

        follow: Wait for the end of a running job.

        job: The id of the job, or a part that only its id has. "" means the latest
            job of this box name.

    Returns:
        The job's receipt, None if it is missing or damaged.

    Raises:
        JobFailed: The job's exit code is not 0; it becomes that of `inv logs`.

        UsageError: There is no log, or there are several.
    """
    selection = Selection.parse(tail, since, follow=follow)
    if job and not JOB.fullmatch(job):
        job = history.find_id(context, job)
    finished = finished_jobs.find(context, job) if job else None
    if finished is None or finished.receipt is None:
        if context.find_box() is not None:
            with notify.at_end(context):
                shown = _show_job_on_box(context, selection, job)
                if shown:
                    return receipt.read(context.job_dir(shown) / receipt.FILE)
        elif not job:
            finished = finished_jobs.latest(context)
            _refuse_several_boxes(context, finished)
    if finished is None:
        if job:
            if job_facts.read(context, job) is not None:
                raise UsageError(
                    f"the log of job {job} is not here, and its box is gone",
                    next="inv history",
                )
            raise UsageError(
                f"there is no job {job} in {context.settings.project}",
                next="inv history lists the jobs",
            )
        # Raises the error which says that there is no box, and which boxes there are.
        context.boxes.running()
        return None
    _show_local_log(context, finished, selection, is_named=bool(job))
    return finished.receipt


def _show_job_on_box(context: BoxContext, selection: Selection, job: str) -> str:
    """
    Print the log of a job from its box.

    Returns:
        The job's id, "" if the box has no such job.
    """
    box = bring_up.wait_until_reachable(context)
    if job:
        status: JobStatus = context.call_resuming(
            lambda channel: remote_job.status(channel, job)
        )
        if status.state == "none":
            return ""
    else:
        latest = remote_job.latest(context)
        if latest is None:
            raise _no_job_error(context, box)
        status = latest
    if status.units is not None:
        unit_job.resume(context, status.job)
    path, shown = remote_job.log_path(context, status.job), 0
    context.chain.stage, context.chain.job_state = "run", "started"
    if selection.is_all:
        with suppress(FileNotFoundError):
            shown = log.show_log(
                path, context.screen.output, context.screen.output_gone
            )
    else:
        status = remote_job.catch_up(context, box, status.job)
        now = time.time() + context.ssh(box).clock_ahead
        shown = _show(context, status.job, path, selection, now)
        if status.state == "running" and not selection.follow:
            context.screen.close_line()
            state = "still runs"
            if status.waiting:
                state = describe_waiting(status.waiting)
            context.screen.note(f"job {status.job} {state}; inv logs follows it")
            return status.job
    run = run_record.read(context)
    run_id = run.id if run is not None and run.has(status.job) else status.job
    record = follow.watch(context, box, status.job, run=run_id, shown=shown)
    receipt.keep(context, box, status.job, record)
    run_record.record_end(context, status.job, record)
    if status.job == context.store.record.job:
        here = "fetch " * (not context.store.record.fetched)
        context.screen.note(f"then: inv {here}teardown")
    if record.code:
        raise JobFailed(record.code, status.job)
    return status.job


def _refuse_several_boxes(
    context: BoxContext, finished: finished_jobs.FinishedJob | None
) -> None:
    """
    Raise UsageError if the latest job of this name is a `map` on several boxes.

    Its logs are those of the boxes. The log of an older job would be taken for it.

    Args:
        finished: The latest job whose log is here, None if there is none.
    """
    call = unit_job.latest(context)
    if call is None or not call[1].boxes:
        return
    if finished is not None and finished.job > call[0]:
        # A job without a receipt may be that of one of the boxes.
        units = unit_job.load(context, finished.job)
        if units is None or units.part_of != call[0]:
            return
    raise no_box.several_error(context, [name for name, _ in call[1].boxes])


def _no_job_error(context: BoxContext, box: Box) -> UsageError:
    holder = None if context.store.locked else context.store.holder()
    first, used = "inv run", ""
    if holder is not None:
        command = printable(holder.command)
        used = f'pid {holder.pid} "{command}" uses the box'
        first = "wait, then run the same command again"
        if holder.is_notebook:
            first = "inv run --queue starts a job when the notebook has ended"
    return UsageError(
        f"no job has run on {context.title} ({box.id}) yet",
        running=used,
        next="\n".join([first, *no_box.earlier_jobs(context)]),
    )


def _show(
    context: BoxContext, job: str, path: Path, selection: Selection, now: float
) -> int:
    """Print the selected part of a local log; return the log's size."""
    begin = 0
    if selection.since is not None:
        offset = log.offset_at(path, now - selection.since)
        if offset is None:
            context.screen.note(
                f"no times are recorded for the output of job {job}: --since is ignored"
            )
        begin = offset or 0
    if selection.tail is not None:
        begin = max(begin, log.offset_of_last_lines(path, selection.tail))
    return log.show_log(path, context.screen.output, context.screen.output_gone, begin)


def _show_local_log(
    context: BoxContext,
    finished: finished_jobs.FinishedJob,
    selection: Selection,
    *,
    is_named: bool,
) -> None:
    """
    Print the local log of a finished job.

    Args:
        is_named: Whether the user has named the job; else its box is gone.

    Raises:
        JobFailed: The job's exit code was not 0.

        Lost: The outcome of the job is not recorded on this machine.
    """
    screen = context.screen
    name = remote_job.log_name(context, finished.job)
    gone = "" if is_named else f"{no_box.message(context)}: "
    screen.note(f"{gone}job {finished.job}, from {name}")
    _show(context, finished.job, finished.log, selection, time.time())
    screen.close_line()
    if finished.code is None:
        raise Lost(f"job {finished.job}: {finished.ending}", next="inv run")
    mark = "failed" if finished.code else "done"
    task = "run" if unit_job.load(context, finished.job) is None else "map"
    screen.print_stage(task, mark, finished.duration, finished.ending)
    if finished.receipt is not None and finished.receipt.advice:
        screen.warn(finished.receipt.advice)
    if finished.code:
        raise JobFailed(finished.code, finished.job)
