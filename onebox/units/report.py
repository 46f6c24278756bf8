"""Report how the units of a job ended: units.csv, the failed ones, advice."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.errors import StateError
from onebox.transfer.ledger import LastFetch
from onebox.units import advice as unit_advice
from onebox.units import failures as unit_failures
from onebox.units import job as unit_job
from onebox.units import results as unit_results
from onebox.units import table as units_csv
from onebox.units.folders import TABLE
from onebox.units.results import UnitCounts

if TYPE_CHECKING:
    from onebox.context import BoxContext
    from onebox.units.job import UnitJob
    from onebox.units.results import UnitResult


def save_table(context: BoxContext, job: str) -> None:
    """
    Write units.csv beside the outputs of a job that are here, if it had units.

    In the process of one of several boxes nothing is written: the process that has
    started it writes the table of all of them.
    """
    units = unit_job.load(context, job)
    if units is not None and context.chain.part is None:
        write_table(context, units)


def after_fetch(context: BoxContext, job: str) -> None:
    """
    Report how the units of a job have ended whose outputs were fetched.

    Nothing is done if the job had no units. Of a part, only its own units are counted.
    """
    units = unit_job.load(context, job)
    if units is None:
        return
    # The folder of `fetch --into` is stored.
    unit_job.save(context, job, units)
    results = unit_job.results(context.outputs_folder, units)
    missing = unit_results.failed(results, units.numbers)
    context.chain.units_without_result = len(missing)
    if not units.part_of:
        report(context, units, results, advice=True)
        return
    own = {n: results[n] for n in units.numbers if n in results}
    done, total = len(units.numbers) - len(missing), len(units.numbers)
    counts = UnitCounts(total, done, len(own) - done, total - len(own))
    _print_counts(context, counts, "")
    _print_advice(context, own)


def write_table(context: BoxContext, units: UnitJob) -> None:
    """Write units.csv, unless a job has an output of this name."""
    plan = units.plan
    path = context.outputs_folder / plan.root / TABLE
    memories = [context.fetch_memory]
    memories += [context.fetch_memory.with_name(name) for name, _ in units.boxes]
    for memory in memories:
        if os.fsencode(plan.root + TABLE) in LastFetch(memory).paths():
            shown = _shown(context, path)
            context.screen.warn(f"{shown} is an output of the job: kept")
            return
    results = unit_job.results(context.outputs_folder, units)
    try:
        units_csv.write(path, plan.names, plan.units, results)
    except StateError as error:
        # The exit code of the job is more important than the table.
        context.screen.warn(f"the table of the units: {error.message}")


def report(
    context: BoxContext,
    units: UnitJob,
    results: Mapping[int, UnitResult],
    *,
    advice: bool = False,
) -> None:
    """
    Print how many units are done, those that have failed, and what to type next.

    Args:
        advice: Whether to advise what the units need, as used on the box of *context*.
    """
    plan, screen = units.plan, context.screen
    counts = unit_results.count(plan, results)
    path = context.outputs_folder / plan.root / TABLE
    _print_counts(context, counts, f"→ {_shown(context, path)}")
    for line in unit_failures.lines(plan.names, plan.units, results):
        screen.note(line)
    if advice:
        _print_advice(context, results)
    if counts.done < counts.total:
        screen.note(
            "inv logs --unit=N prints the output of a unit; "
            f"{_next(context, units, counts)} runs those that are not done"
        )


def _next(context: BoxContext, units: UnitJob, counts: UnitCounts) -> str:
    """Return the command that runs the units which are not done."""
    # If none has failed, the sweep only goes on. What was typed is known to --failed.
    line = "inv map --failed" if counts.failed or units.has_flags else "inv map"
    return line + unit_job.into(context, context.outputs_folder_for_record)


def _shown(context: BoxContext, path: Path) -> str:
    """Return a path as messages show it: relative to the project if it is in it."""
    inside = context.root in path.parents
    return formatting.path(str(path.relative_to(context.root) if inside else path))


def _print_counts(context: BoxContext, counts: UnitCounts, where: str) -> None:
    result = f"{counts.done:,} of {counts.total:,} done"
    for number, what in ((counts.failed, "failed"), (counts.left, "left")):
        result += f", {number:,} {what}" if number else ""
    mark = "done" if counts.done == counts.total else "warn"
    mark = "failed" if counts.failed else mark
    context.screen.print_stage("units", mark, result, where)


def _print_advice(context: BoxContext, results: Mapping[int, UnitResult]) -> None:
    box, table = context.find_box(), context.settings.map
    if box is None:
        return
    for line in unit_advice.advise(
        results,
        cpus=table.cpus,
        memory=table.memory,
        box_cpus=box.offer.cpus,
        box_memory=box.offer.memory,
    ):
        context.screen.note(line)
