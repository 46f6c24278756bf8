"""Decide which units `map` runs: all, or what is left of an earlier sweep."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.boxes import bring_up, offers
from onebox.errors import UsageError
from onebox.invocation import UnitFlags
from onebox.jobs import receipt
from onebox.stages import fetch, push
from onebox.units import job as unit_job
from onebox.units import plan as unit_plan
from onebox.units import results as unit_results
from onebox.units.job import UnitJob
from onebox.units.plan import UnitPlan
from onebox.units.results import UnitResult
from onebox.units.templates import uses

if TYPE_CHECKING:
    from onebox.context import BoxContext
    from onebox.providers.values import Box


def choose(context: BoxContext, *, fetches: bool = True) -> UnitJob | None:
    """
    Find the units that run, and keep them in the state of the chain.

    A sweep that is not complete goes on, with what is not done, as long as code, data,
    command and parameters are those that it began with. Otherwise all units run.

    Args:
        fetches: With `--failed`, first fetch the outputs of a job that has ended.

    Returns:
        The units; None if all of them are done.

    Raises:
        ConfigError, InputError, UsageError: There is no command, there are no
            parameters, or they are wrong.
    """
    if context.chain.part is not None:
        context.chain.units = context.chain.part
        return context.chain.part
    flags = context.invocation.units or UnitFlags()
    if flags.failed and fetches and not context.invocation.queue:
        _fetch_ended_job(context)
    plan, found = _plan(context, flags), unit_job.latest(context)
    all_units = UnitJob(
        plan,
        tuple(unit.number for unit in plan.units),
        is_typed=bool(flags.line or flags.words),
        has_flags=bool(flags.line or flags.words or flags.over),
    )
    units = context.chain.units = all_units
    if flags.failed or _goes_on(context, flags, units, found):
        earlier = _earlier(context, plan, found)
        results = unit_job.results(context.outputs_folder, earlier)
        units = replace(
            units,
            numbers=tuple(unit_results.not_done(plan, results)),
            sweep=earlier.sweep,
            inputs=earlier.inputs,
            has_flags=units.has_flags or earlier.has_flags,
        )
    if flags.limit:
        limit = formatting.whole_number(flags.limit)
        if not limit:
            raise UsageError(
                f"--limit: expected a number of units, got {flags.limit!r}",
                next="inv map --limit=3",
            )
        units = replace(units, numbers=units.numbers[:limit])
    context.chain.units = units if units.numbers else None
    return context.chain.units


def notes(context: BoxContext, units: UnitJob) -> Iterator[str]:
    """Yield what a user may not expect of the units that run."""
    if context.chain.part is not None:
        return
    plan, table = units.plan, context.settings.map
    flags = context.invocation.units or UnitFlags()
    found = unit_job.latest(context)
    if units.sweep:
        left = ""
        if not units.waits_for:
            # With --limit, only some of them run.
            results = unit_job.results(context.outputs_folder, units)
            numbers = tuple(unit_results.not_done(plan, results))
            is_are = "is" if len(numbers) == 1 else "are"
            left = f": {replace(units, numbers=numbers).amount} {is_are} not done"
        yield f"the sweep of job {units.sweep} goes on{left}; --again runs all"
        if have_inputs_changed(context, units):
            yield (
                "code, data or settings have changed since it began: results of both "
                "will stand side by side"
            )
    elif any(result.run != units.sweep for result in _results_here(context, units)):
        yield (
            f"{formatting.path(plan.root)} has units of an earlier sweep, whose files "
            "stay beside the new ones; --into=DIR puts these elsewhere"
        )
    if not units.sweep and found is not None and not flags.again:
        job, earlier = found
        same = earlier.plan.digest == plan.digest
        same = same and earlier.folder == context.outputs_folder_for_record
        if same and not _is_complete(context, job, earlier):
            yield (
                "a new sweep begins, because code, data or settings have changed "
                f"since job {job}"
            )
    unused = [name for name in plan.names if not uses(plan.template, name)]
    if unused:
        names = formatting.first_names([f"{{{name}}}" for name in unused])
        have = "this parameter as a variable"
        if len(unused) > 1:
            have = "these parameters as variables"
        yield f"the command does not contain {names}; each unit has {have}"
    known = [found[0] for found in context.cache.offers.values() if found]
    for offer in known[:1]:
        needs = [(f"{table.cpus} CPUs", table.cpus > offer.cpus)]
        if table.memory:
            text = formatting.byte_count(table.memory)
            needs.append((f"{text} of memory", table.memory > offer.memory))
        for what, is_more in needs:
            if is_more:
                yield f"a unit needs {what}, more than the box has: one runs at a time"


def check_size(context: BoxContext, box: Box | None) -> None:
    """
    Raise UsageError if no machine of the provider is large enough for a job or a unit.

    On a cluster a task asks for what one unit needs, and a job for the whole size.

    Args:
        box: The box that exists, None if it will be created.
    """
    if context.provider.powers_off:
        return
    table = context.settings.map
    offer = offers.find(context)[0] if box is None else box.offer
    if context.chain.units is None:
        context.provider.check_task(offer.cpus, offer.memory, of_map=False)
        return
    # The agent computes the same (`onebox.agent.slurm.array`).
    memory = table.memory or offer.memory // max(offer.cpus // table.cpus, 1)
    context.provider.check_task(table.cpus, memory, of_map=True)


def _plan(context: BoxContext, flags: UnitFlags) -> UnitPlan:
    """Return the plan of all units."""
    if flags.failed and not (flags.line or flags.words or flags.over):
        found = unit_job.latest(context)
        if found is not None and found[1].has_flags:
            # What was typed for the sweep need not be typed again.
            return found[1].plan
    return unit_plan.make(
        context.settings.map,
        context.root,
        command=flags.line,
        words=flags.words,
        over=flags.over,
        reserved=(*context.settings.run.env, *context.settings.run.secrets),
        source=context.settings.source,
    )


def _results_here(context: BoxContext, units: UnitJob) -> Iterable[UnitResult]:
    """Return the results of these units that are in the folder for outputs."""
    folders = {unit.number: unit.outputs for unit in units.plan.units}
    return unit_results.read(context.outputs_folder, folders).values()


def _goes_on(
    context: BoxContext,
    flags: UnitFlags,
    units: UnitJob,
    found: tuple[str, UnitJob] | None,
) -> bool:
    """
    Return whether the sweep of the job that was *found* goes on.

    A complete sweep does not, nor one with other inputs.
    """
    if found is None or flags.again:
        return False
    job, earlier = found
    same = earlier.plan.digest == units.plan.digest
    if not same or earlier.folder != context.outputs_folder_for_record:
        return False
    if _is_complete(context, job, earlier):
        return False
    return not have_inputs_changed(context, earlier)


def _is_complete(context: BoxContext, job: str, units: UnitJob) -> bool:
    """
    Return whether all units of a sweep have ended, and its last job by itself.

    The result is False if this command line has fetched the job's outputs: no client
    waited for its end, so the user does not know it. It is also False if no command has
    printed how the units on several boxes ended.
    """
    if units.boxes:
        has_ended = units.ended
    else:
        its_receipt = receipt.read(context.job_dir(job) / receipt.FILE)
        has_ended = its_receipt is not None and its_receipt.cause == "exit"
    if not has_ended:
        return False
    results = unit_job.results(context.outputs_folder, units)
    if unit_results.count(units.plan, results).left:
        return False
    return context.chain.fetched_earlier_job != job


def have_inputs_changed(context: BoxContext, units: UnitJob) -> bool:
    """Return whether code, data or settings are not those that a sweep began with."""
    if not units.inputs:
        return False
    files = context.chain.pushed_digest or push.digest(context)
    return units.inputs != unit_job.inputs_of(context, files)


def _earlier(
    context: BoxContext, plan: UnitPlan, found: tuple[str, UnitJob] | None
) -> UnitJob:
    """
    Return the units of the job that was *found*.

    Raises:
        UsageError: There is no such job, its units are not those of *plan*, or their
            results are in another folder.
    """
    if found is None:
        raise UsageError("--failed: no units have run here yet", next="inv map")
    job, units = found
    if not units.has_units_of(plan):
        raise UsageError(
            f"--failed: the parameters have changed since job {job}, so its results "
            "belong to other units",
            next="give the same parameters; inv map runs all units",
        )
    if units.folder != context.outputs_folder_for_record:
        where = "the project" if units.folder == "." else formatting.path(units.folder)
        raise UsageError(
            f"--failed: the results of job {job} are in {where}",
            next=f"inv map --failed{unit_job.into(context, units.folder)}",
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
