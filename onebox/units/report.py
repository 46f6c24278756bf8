"""Report how the units of a job ended: units.csv, the failed ones, advice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onebox import formatting
from onebox.units import advice as unit_advice
from onebox.units import failures as unit_failures
from onebox.units import job as unit_job
from onebox.units import results as unit_results
from onebox.units import table as units_csv

if TYPE_CHECKING:
    from onebox.context import BoxContext
    from onebox.units.job import UnitJob
    from onebox.units.results import UnitCounts, UnitResult

# The file beside the folders of the units.
TABLE = "units.csv"


def after_fetch(context: BoxContext, job: str) -> None:
    """
    Write units.csv beside the outputs that were fetched, and report failed units.

    Nothing is done if the job had no units.
    """
    units = unit_job.load(context, job)
    if units is None:
        return
    unit_job.save(context, job, units)
    plan, results = units.plan, unit_job.results(context.outputs_folder, units)
    path = context.outputs_folder / plan.root / TABLE
    units_csv.write(path, plan.names, plan.units, results)
    counts = context.chain.unit_counts = unit_results.count(plan, results)
    _print(context, units, results, counts)


def _print(
    context: BoxContext,
    units: UnitJob,
    results: dict[int, UnitResult],
    counts: UnitCounts,
) -> None:
    screen, plan, table = context.screen, units.plan, context.settings.map
    result = f"{counts.done:,} of {counts.total:,} done"
    for number, what in ((counts.failed, "failed"), (counts.left, "left")):
        result += f", {number:,} {what}" if number else ""
    all_done = counts.done == counts.total
    mark = "done" if all_done else "failed" if counts.failed else "warn"
    name = formatting.path(f"{plan.root}{TABLE}")
    screen.print_stage("units", mark, result, f"→ {name}")
    for line in unit_failures.lines(plan.names, plan.units, results):
        screen.note(line)
    box = context.find_box()
    if box is not None:
        for line in unit_advice.advise(
            results,
            cpus=table.cpus,
            memory=table.memory,
            box_cpus=box.offer.cpus,
            box_memory=box.offer.memory,
        ):
            screen.note(line)
    if not all_done:
        screen.note(
            "inv logs --unit=N prints the output of a unit; "
            "inv map --failed runs those that are not done"
        )
