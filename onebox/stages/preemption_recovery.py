"""
Restart a job on a new box after the cloud has preempted its spot box.

No result is lost. While the preempted box still answers, its checkpoints and
outputs are fetched, and then it is removed. The disk of a stopped box is read where
that costs nothing. Where reading it would cost another machine, the disk stays until
the job has ended and its outputs are fetched. The next attempt resumes from the last
checkpoints that were pulled.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.boxes import delete, power
from onebox.errors import (
    BoxFailed,
    Lost,
    NoCapacity,
    OutputsHeld,
    Preempted,
    ProviderError,
)
from onebox.jobs import checkpoints, preemption, remote_job, run_record
from onebox.jobs.run_record import Run
from onebox.project_files import checkpoint_paths
from onebox.providers.values import Box
from onebox.remote.job_answers import JobStatus
from onebox.stages import fetch_preempted, provision, push

if TYPE_CHECKING:
    from onebox.context import BoxContext
    from onebox.ui.progress import StageLine


def resume_or_begin(
    context: BoxContext, command: str, last_job: JobStatus | None
) -> tuple[Run, bool]:
    """
    Return the run that a new job belongs to, and whether that run moves to a new box.

    An earlier run of the same command is resumed if its last attempt was cut off, for
    example because the cloud preempted the box. Otherwise a new run begins.

    Args:
        last_job: The status of the latest job on this box, None if there is none.
    """
    run = run_record.read(context)
    if run is None or run.ended or run.command != command or not run.attempts:
        return Run(command), False
    if last_job is None:
        return run, True
    unended = last_job.state == "lost" or last_job.cause in run_record.NOT_BY_ITSELF
    if run.has(last_job.job) and unended:
        return run, False
    return Run(command), False


def describe_resume(context: BoxContext, command: str) -> str:
    """
    Return a phrase that says how a job would resume an interrupted run.

    The phrase is "" if the job would begin a new run.
    """
    box, last_job = context.find_box(), None
    if box is not None and box.state == "running":
        last_job = remote_job.latest(context)
    run, on_new_box = resume_or_begin(context, command, last_job)
    if not run.attempts:
        return ""
    stopped = box is not None and box.state != "running" and not box.disk_only
    if not on_new_box or stopped:
        return f"resumes the run of job {run.id} from what is on its box"
    pull = checkpoints.pulls(context).latest(run.id)
    if pull is None:
        return f"starts again: no checkpoints of job {run.id} were pulled"
    return f"resumes the run of job {run.id} from {checkpoints.describe(pull)}"


def why_not_restarted(context: BoxContext, run: Run, box: Box, attempts: int) -> str:
    """Return why a preempted job is not restarted, "" if it can be restarted."""
    limits = context.settings.limits
    if not box.offer.spot:
        return "only jobs on spot capacity are restarted"
    if context.invocation.only:
        return "--only restarts nothing"
    if attempts > limits.retries:
        return f"[limits] retries = {limits.retries}"
    spent = run_record.account(run, box).cost
    if limits.max_cost is None:
        return ""
    hourly = box.offer.hourly
    worst = None if hourly is None else hourly * limits.max_hours
    if spent is None or worst is None or spent + worst > limits.max_cost:
        return (
            f"{formatting.money(spent)} is spent, and another attempt could cost "
            f"{formatting.money(worst)} more: [limits] max_cost = "
            f"{formatting.money(limits.max_cost)}"
        )
    return ""


def next_box(context: BoxContext, run: Run, box: Box, attempts: int) -> tuple[Box, int]:
    """
    Fetch what is on the preempted box, then create the box for the next attempt.

    Returns:
        The new box, and the number of the attempt that runs on it. A box that is
        preempted before its job has started counts as an attempt too.

    Raises:
        Preempted: The limit of attempts or cost is reached.

        NoCapacity: No offer has capacity now.
    """
    context.invocation.box_replaced(context.store.record.temporary)
    _fetch_then_remove(context, run, box)
    while True:
        attempts += 1
        # `max_cost` limits all attempts together, so the cost so far is counted.
        context.chain.spent_before = run_record.account(run, box).cost
        try:
            provision.perform(context)
            push.perform(context)
            new_box = context.boxes.running()
            restore(context, run, new_box)
            return new_box, attempts
        except NoCapacity as error:
            resume = _resume_command(context, run)
            error.next = f"{resume}, once there is capacity; {error.next}"
            raise
        except (Lost, Preempted):
            lost_box = context.boxes.refresh()
            if lost_box is not None:
                if not preemption.preemption_reason(context, lost_box):
                    raise
                box = lost_box
                # No job has started on this box, so its disk holds nothing to keep.
                _remove(context, box)
            refusal = why_not_restarted(context, run, box, attempts)
            if refusal:
                raise given_up_error(context, run, box, refusal) from None
            context.screen.note("preempted before the job started; trying again")


def restore(context: BoxContext, run: Run, box: Box) -> None:
    """Copy the run's newest checkpoints to a new box, or print that there are none."""
    with context.chain.timed("restore"):
        pull = checkpoints.restore(context, box, run.id)
    if pull is None:
        why = "no checkpoints were pulled"
        if not checkpoint_paths(context):
            why = "[fetch] checkpoints is not set"
        context.screen.note(f"{why}: the job starts from the beginning")


def given_up_error(context: BoxContext, run: Run, box: Box, refusal: str) -> Preempted:
    """Return the error for a preempted job that is not restarted."""
    try:
        current = context.provider.get(box.id, box.place)
    except ProviderError:
        current = box
    crashed = current is not None and current.why == "poweroff"
    cause = "crashed" if crashed else "was taken back by the provider"
    text = f"{context.title} ({box.id}) {cause}"
    if box.offer.spot:
        text += f", and the job is not restarted ({refusal})"
    pull = checkpoints.pulls(context).latest(run.id)
    if pull is not None:
        folder = checkpoints.pulls(context).folder(pull)
        where = formatting.path(str(folder.relative_to(context.root)))
        text += f"\n    {checkpoints.describe(pull)} are in {where}"
    next_command = _resume_command(context, run)
    kept_disks = sorted(context.chain.superseded)
    if current is not None and current.state in ("stopping", "stopped"):
        kept_disks.append(box.id)
    if kept_disks:
        text += f"\n    {formatting.first_names(kept_disks)}: the disk is kept"
        next_command = f"inv fetch --rescue fetches from the disk; {next_command}"
    return Preempted(text, next=next_command)


def is_superseded(context: BoxContext, box: Box) -> bool:
    """
    Return whether *box* ran an attempt of the latest run, but not the final attempt.

    The result is False as long as the job of this run has not ended.
    """
    run = run_record.read(context)
    if run is None or not run.ended:
        return False
    # The box of the last attempt is not superseded, because it may hold the only copy
    # of the outputs.
    boxes = [attempt.box for attempt in run.attempts]
    return box.id in boxes and box.id != boxes[-1]


def remove_kept_outputs(context: BoxContext, run: Run) -> None:
    """Remove the local outputs of earlier attempts, now that the job has ended."""
    for attempt in run.attempts[:-1]:
        folder = context.job_dir(attempt.job)
        for name in ("outputs", "outputs-memory"):
            shutil.rmtree(folder / name, ignore_errors=True)


def _fetch_then_remove(context: BoxContext, run: Run, box: Box) -> None:
    """
    Fetch what is on the preempted box, and remove the box if all is fetched.

    If something is not fetched and the box is off, its disk stays, and the next box is
    created beside it. If the box no longer exists at the provider, nothing is fetched.

    Raises:
        OutputsHeld: Something is not fetched, and the box has not stopped in time.
    """
    with context.chain.timed("recover"), context.screen.stage("recover") as stage_line:
        current = context.provider.get(box.id, box.place)
        all_fetched = False
        if current is not None and current.state == "running":
            all_fetched = fetch_preempted.fetch_attempt(
                context, run, current, stage_line
            )
        if not all_fetched:
            stage_line.doing(f"waiting until {box.id} is off")
            current = preemption.wait_until_at_rest(context, box, "running", "stopping")
        if current is not None and not all_fetched and current.state == "running":
            raise OutputsHeld(
                f"{box.id} had a preemption notice and still runs, and not all of its "
                "outputs are fetched; it is kept",
                next="inv fetch, then inv run",
            )
        stopped = current is not None and current.state == "stopped"
        if current is not None and stopped and current.offer.machine_price == 0:
            all_fetched = _fetch_from_free_disk(context, run, current, stage_line)
        if current is not None and not all_fetched:
            # The record names this box until the next box is created. If this command
            # is killed before that, the next command recognizes the box by the record.
            context.chain.superseded.add(box.id)
            _expect_new_box(context)
            stage_line.end("", f"the disk of {box.id} is kept until the job has ended")
        else:
            stage_line.doing(f"removing {box.id}")
            _remove(context, current or box)
            pull = checkpoints.pulls(context).latest(run.id)
            checkpoints_pulled = f"{checkpoints.describe(pull)}; " if pull else ""
            stage_line.end("", f"{checkpoints_pulled}{box.id} is gone")


def _fetch_from_free_disk(
    context: BoxContext, run: Run, box: Box, stage_line: StageLine
) -> bool:
    """
    Start a stopped box that is free of charge, and fetch what its disk holds.

    Returns:
        Whether everything was fetched.
    """
    stage_line.doing(f"starting {box.id} to read its disk")
    try:
        box = power.start(context, box)
    except (Lost, Preempted, BoxFailed, ProviderError):
        return False
    all_fetched = fetch_preempted.fetch_attempt(context, run, box, stage_line)
    current = context.provider.get(box.id, box.place)
    if not all_fetched and current is not None and current.state == "running":
        # The box is stopped again, because the next attempt gets a box of its own.
        context.forget_connection()
        context.provider.stop(current)
    return all_fetched


def _remove(context: BoxContext, box: Box) -> None:
    delete.delete(context, box)
    context.store.forget()
    _expect_new_box(context)


def _expect_new_box(context: BoxContext) -> None:
    """
    Close the connection to the old box, and clear the cached boxes and offers.

    The next box is then requested and announced as a new one.
    """
    context.forget_connection()
    context.boxes.invalidate()
    context.cache.offers.clear()
    context.chain.ended_boxes += 1


def _resume_command(context: BoxContext, run: Run) -> str:
    if checkpoints.pulls(context).latest(run.id) is None:
        return f"inv {context.chain.task}"
    return (
        f"inv {context.chain.task} resumes from them "
        "(after inv teardown: from the beginning)"
    )
