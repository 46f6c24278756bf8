"""Run many units on one box as one job."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from onebox.boxes import bring_up
from onebox.jobs import job_environment, receipt
from onebox.stages import (
    earlier_boxes,
    map_boxes,
    queue,
    run,
    run_attempts,
    sweep,
)
from onebox.units import job as unit_job
from onebox.units import report as unit_report

if TYPE_CHECKING:
    from onebox.context import BoxContext
    from onebox.jobs.receipt import Receipt

# What a plan says of `map --failed` if there is nothing to run.
UP_TO_DATE = "all units are done"


def check(context: BoxContext) -> bool:
    """
    Return whether there are units to run, and whether they run on one box.

    Raises:
        OneboxError: This machine can tell that the units will not start.
    """
    if on_several_boxes(context):
        map_boxes.prepare(context)
        return False
    job_environment.secret_values(context)
    if not context.invocation.queue:
        _collect(context)
    return sweep.choose(context) is not None


def on_several_boxes(context: BoxContext) -> bool:
    """Return whether the units run on several boxes. Raises UsageError."""
    return context.chain.part is None and map_boxes.wanted(context) > 1


def _collect(context: BoxContext) -> None:
    """Fetch what the boxes of an earlier call have, unless this is one of its boxes."""
    if context.chain.part is None:
        earlier_boxes.collect(context, own=False)


def perform(
    context: BoxContext, *, detach: bool = False, yes: bool = False
) -> Receipt | tuple[Receipt, ...] | None:
    """
    Run the units as one job, and fetch their outputs.

    A run that was interrupted is resumed: units that are done do not run again.

    Args:
        detach: Return once the job has started.

        yes: Answer yes to all questions.

    Returns:
        The receipt, or that of each of several boxes. None if the job is detached, or
        if no unit has to run.

    Raises:
        JobFailed: A unit has failed. Logs and outputs are fetched.

        Preempted: The cloud preempted the box, and the job is not restarted.
    """
    if on_several_boxes(context):
        map_boxes.check(context, detach=detach)
        units = context.chain.units
        if units is None:
            return _nothing_to_do(context)
        return map_boxes.perform(context, units, yes=yes)
    before = context.chain.units
    if context.invocation.queue:
        # Its turn has come, so the lock is held.
        _collect(context)
    if context.invocation.only:
        check(context)
    elif before is not None:
        # The push may have fetched the outputs of a job that had ended.
        sweep.choose(context, fetches=False)
    units = context.chain.units
    if units is None:
        return _nothing_to_do(context)
    for note in sweep.notes(context, units):
        context.screen.note(note)
    if context.invocation.queue:
        queue.wait_for_turn(context)
    context.lock()
    queue.note_changed_files(context)
    box = bring_up.wait_until_reachable(context)
    sweep.check_size(context, box)
    command = run_attempts.Command(
        None, None, job_environment.secret_values(context), units=units
    )
    return run.run_command(context, command, box, detach=detach, yes=yes)


def _nothing_to_do(context: BoxContext) -> Receipt | None:
    """Print that all units are done; return the receipt of the job that did them."""
    found, detail = unit_job.latest(context), UP_TO_DATE
    job = "" if found is None else found[0]
    if found is not None and found[1].boxes and not found[1].ended:
        unit_job.save(context, job, replace(found[1], ended=True))
    if found is not None:
        if job == context.chain.fetched_earlier_job:
            detail = f"job {job} has done all units; inv map --again runs them again"
        elif sweep.have_inputs_changed(context, found[1]):
            detail += " with other code, data or settings than now; inv map runs all"
        unit_report.save_table(context, job)
    context.screen.print_stage("map", "done", "up to date", detail)
    return receipt.read(context.job_dir(job) / receipt.FILE) if job else None
