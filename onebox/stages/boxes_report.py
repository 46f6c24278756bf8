"""Show the boxes of one call of `map`: live, at their end, and when they are left."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.agent.file_names import printable
from onebox.providers.costs import total
from onebox.units import job as unit_job
from onebox.units import report as unit_report
from onebox.units import results as unit_results

if TYPE_CHECKING:
    from onebox.context import BoxContext
    from onebox.jobs.receipt import Receipt
    from onebox.units.job import UnitJob


class LiveLines:
    """What each box does at the moment."""

    def __init__(self, units: UnitJob) -> None:
        self._began = time.monotonic()
        self._width = max(len(name) for name, _ in units.boxes)
        self._doing = {name: "starting" for name, _ in units.boxes}

    def update(self, name: str, line: bytes) -> None:
        """Store the progress that the process of a box has reported."""
        self._doing[name] = printable(line.decode("utf-8", "replace"))

    def text(self, *, live: bool) -> str:
        """Return a line for each box, and on a terminal one for all."""
        width = self._width
        lines = [f"{name:{width}}  {doing}" for name, doing in self._doing.items()]
        if live:
            spent = formatting.seconds(time.monotonic() - self._began)
            lines.append(f"{'':{width}}  {spent}    Ctrl-C detaches")
        return "\n".join(lines)


def print_all(
    context: BoxContext,
    units: UnitJob,
    codes: Mapping[str, int],
    receipts: Mapping[str, Receipt],
) -> int:
    """
    Write the table of the units; print how they, and the boxes, have ended.

    Returns:
        How many of the units that were to run are not done.
    """
    results = unit_job.results(context.outputs_folder, units)
    unit_report.write_table(context, units)
    unit_report.report(context, units, results)
    for name, own in units.boxes:
        code, found = codes[name], receipts.get(name)
        missing = len(unit_results.failed(results, own))
        mark = "done" if not code and not missing else "failed"
        done = f"{len(own) - missing:,} of {formatting.count(len(own), 'unit')} done"
        detail = [f"exit {code}"]
        if found is not None:
            detail.append(formatting.seconds(found.seconds))
            if found.cost != 0:
                detail.append(formatting.money(found.cost))
        context.screen.print_stage(name, mark, done, ", ".join(detail))
    costs = [found.cost for found in receipts.values()]
    if any(cost != 0 for cost in costs):
        least = "at least " if len(costs) < len(units.boxes) else ""
        context.screen.say(f"all boxes: {least}{formatting.money(total(costs))}")
    return len(unit_results.failed(results, units.numbers))


def left(context: BoxContext, units: UnitJob) -> Iterator[str]:
    """
    Yield the lines that say which boxes are left, what they cost, and what to type.

    No provider is asked.
    """
    now, rates, lines = time.time(), [], []
    for name, _ in units.boxes:
        record = context.with_name(name).store.record
        if not record.box:
            continue
        rates.append(record.hourly)
        off = formatting.when(record.deadline, now)
        job = f"job {record.job}" if record.job and not record.fetched else "no job"
        lines.append(
            f"        {name}: {record.box}, {job}, {formatting.rate(record.hourly)}, "
            f"powers itself off {off} at the latest"
        )
    if not lines:
        yield "onebox: stopped; no box is left"
        yield "  next: inv map runs what is not done"
        return
    boxes = formatting.count(len(lines), "box", "boxes")
    yield f"onebox: detached; {boxes} continue, {formatting.rate(total(rates))}"
    yield from lines
    first = units.boxes[0][0]
    yield f"        follow one:    inv logs --name={first}"
    yield f"        stop its job:  inv cancel --name={first}"
    yield "  next: inv status lists them; when all have ended, inv map fetches results"
