"""Run many units on one box: decide which ones, and run them as one job."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onebox import formatting
from onebox.boxes import bring_up
from onebox.errors import UsageError
from onebox.invocation import UnitFlags
from onebox.jobs import job_environment
from onebox.stages import fetch, queue, run, run_attempts
from onebox.units import job as unit_job
from onebox.units import part as unit_part
from onebox.units import plan as unit_plan
from onebox.units import results as unit_results
from onebox.units.job import UnitJob
from onebox.units.plan import UnitPlan

if TYPE_CHECKING:
    from onebox.context import BoxContext
    from onebox.jobs.receipt import Receipt


# What a plan says of `map --failed` if there is nothing to run.
UP_TO_DATE = "all units are done"


def choose(context: BoxContext, *, fetches: bool = True) -> UnitJob | None:
    """
    Find the units that run, and keep them in the state of the chain.

    Args:
        fetches: With `--failed`, first fetch the outputs of a job that has ended.

    Returns:
        The units; None if `--failed` finds that all units are done.

    Raises:
        ConfigError, InputError, UsageError: There is no command, there are no
            parameters, or they are wrong.
    """
    flags = context.invocation.units or UnitFlags()
    plan = unit_plan.make(
        context.settings.map,
        context.root,
        command=flags.line,
        words=flags.words,
        over=flags.over,
        reserved=(*context.settings.run.env, *context.settings.run.secrets),
        source=context.settings.source,
    )
    numbers, sweep = [unit.number for unit in plan.units], ""
    part = unit_part.of_process(context.environ)
    if part is not None:
        typed = bool(flags.line or flags.words)
        of_part = UnitJob(plan, part.numbers, part.sweep, typed, part.of)
        context.chain.units = of_part
        return of_part
    if flags.failed:
        if fetches:
            _fetch_ended_job(context)
        earlier = _earlier(context, plan)
        found = unit_job.results(context.outputs_folder, earlier)
        sweep, numbers = earlier.sweep, unit_results.not_done(plan, found)
    if flags.limit:
        limit = formatting.whole_number(flags.limit)
        if not limit:
            raise UsageError(
                f"--limit: expected a number of units, got {flags.limit!r}",
                next="inv map --limit=3",
            )
        numbers = numbers[:limit]
    typed = bool(flags.line or flags.words)
    units = UnitJob(plan, tuple(numbers), sweep, typed) if numbers else None
    context.chain.units = units
    return context.chain.units


def check(context: BoxContext) -> bool:
    """
    Return whether there are units to run on the box of this command line.

    Raises:
        OneboxError: This machine can tell that the units will not start.
    """
    job_environment.secret_values(context)
    flags = context.invocation.units or UnitFlags()
    # With several boxes, each box has a process of its own, which prepares it.
    return choose(context) is not None and not flags.boxes


def perform(
    context: BoxContext, *, detach: bool = False, yes: bool = False
) -> Receipt | None:
    """
    Run the units as one job, and fetch their outputs.

    A run that was interrupted is resumed: units that are done do not run again.

    Args:
        detach: Return once the job has started.

        yes: Run units again that are done, and whose outputs were not fetched.

    Returns:
        The receipt. None if the job is detached, or if no unit has to run.

    Raises:
        JobFailed: A unit has failed. Logs and outputs are fetched.

        Preempted: The cloud preempted the box, and the job is not restarted.
    """
    if context.invocation.only:
        check(context)
    units = context.chain.units
    if units is None:
        context.screen.print_stage("map", "done", "up to date", UP_TO_DATE)
        return None
    if context.invocation.queue:
        queue.wait_for_turn(context)
    context.lock()
    queue.note_changed_files(context)
    box = bring_up.wait_until_reachable(context)
    command = run_attempts.Command(
        None, None, job_environment.secret_values(context), units=units
    )
    return run.run_command(context, command, box, detach=detach, yes=yes)


def _earlier(context: BoxContext, plan: UnitPlan) -> UnitJob:
    """
    Return the units of the latest job.

    Raises:
        UsageError: There is no such job, or its units are not those of *plan*.
    """
    found = unit_job.latest(context)
    if found is None:
        raise UsageError("--failed: no units have run here yet", next="inv map")
    job, units = found
    if not units.has_units_of(plan):
        raise UsageError(
            f"--failed: the parameters are not those of job {job}, whose units ran "
            "last",
            next="inv map runs all units",
        )
    if units.folder != context.outputs_folder_for_record:
        raise UsageError(
            f"--failed: the results of job {job} are in {units.folder}",
            next=f"inv map --failed --into={units.folder}",
        )
    return units


def _fetch_ended_job(context: BoxContext) -> None:
    """Fetch the outputs of a job that has ended, because they show what is done."""
    box = context.find_box()
    if box is None or box.state != "running":
        return
    if context.store.record.has_unfetched_job(box.id):
        context.lock()
        fetch.fetch_previous(context, bring_up.wait_until_reachable(context))
