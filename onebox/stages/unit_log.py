"""Print the output of one unit of `map`, from its box or from the fetched outputs."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.boxes import bring_up
from onebox.errors import JobFailed, UsageError
from onebox.jobs import history, log, remote_job
from onebox.signals import Interrupted
from onebox.stages.logs import Selection
from onebox.store.paths import JOB
from onebox.units import job as unit_job
from onebox.units import results as unit_results

if TYPE_CHECKING:
    from onebox.context import BoxContext
    from onebox.providers.values import Box
    from onebox.units.job import UnitJob

# The time between two looks at the log of a unit that runs, in seconds.
PAUSE = 0.5
# Of a log on the box, at most so much of the end is searched for the last lines.
MOST_BYTES = 4 << 20


def perform(
    context: BoxContext,
    unit: str,
    *,
    tail: str = "",
    follow: bool = True,
    job: str = "",
) -> None:
    """
    Print what a unit has printed, and follow it until it has ended.

    Args:
        unit: The number of the unit, as text.

        tail: Print only so many of the last lines, and what follows. "" means all.

        follow: Wait for the end of a unit that runs.

        job: The id of the job, or a part of it. "" means the latest job with units.

    Raises:
        JobFailed: The unit's exit code is not 0; it becomes that of `inv logs`.

        UsageError: There is no such unit.
    """
    lines = Selection.parse(tail, "", follow=follow).tail
    number = formatting.whole_number(unit)
    if not number:
        raise UsageError(
            f"--unit: expected the number of a unit, got {unit!r}",
            next="inv logs --unit=17",
        )
    if job and not JOB.fullmatch(job):
        job = history.find_id(context, job)
    found = unit_job.latest(context, with_parts=True) if not job else None
    units = unit_job.load(context, job) if job else None
    if found is not None:
        job, units = found
    if units is None:
        raise UsageError(
            f"job {job} has no units" if job else "no job with units has run here",
            next="inv map runs units; inv history lists the jobs",
        )
    total = len(units.plan.units)
    if number > total:
        raise UsageError(
            f"--unit={number}: job {job} has {formatting.count(total, 'unit')}"
        )
    name = units.box
    if units.boxes:
        # Each of several boxes has a job of its own.
        name = units.box_of(number)
        job = unit_job.parts(context, job).get(name, "")
    if not job or name == context.settings.name:
        _show(context, units, number, job, lines=lines, follow=follow)
        return
    other = context.with_name(name)
    try:
        _show(other, units, number, job, lines=lines, follow=follow)
    except Interrupted:
        context.chain.left = (
            f"onebox: detached; job {job} continues on {context.title_of(name)}",
            f"  next: inv logs --unit={number} follows the unit again",
        )
        raise
    finally:
        other.close()


def _show(
    context: BoxContext,
    units: UnitJob,
    number: int,
    job: str,
    *,
    lines: int | None,
    follow: bool,
) -> None:
    box = context.find_box()
    is_here = box is None or box.state != "running" or context.store.record.job != job
    if is_here or context.store.record.fetched:
        _show_fetched(context, units, number, job, lines)
    elif box is not None:
        _show_from_box(context, box, job, number, lines=lines, follow=follow)


def _show_from_box(
    context: BoxContext,
    box: Box,
    job: str,
    number: int,
    *,
    lines: int | None,
    follow: bool,
) -> None:
    box, offset = bring_up.wait_until_reachable(context, box), 0
    # An interrupt leaves the job running, and says so.
    context.chain.stage, context.chain.job_state = "run", "started"
    end, waits = None if lines is None else _End(lines), False
    while True:
        output = context.screen.output if end is None else end.add
        ask = functools.partial(
            remote_job.unit_log, job_id=job, unit=number, offset=offset, output=output
        )
        count, answer = context.call_resuming(ask, box)
        offset += count
        if count:
            continue
        if end is not None:
            context.screen.output(end.text)
            end = None
        if answer.state == "ended" or not follow:
            break
        if answer.state == "left":
            if not remote_job.job_runs(context, job):
                break
            if not waits:
                context.screen.note(f"unit {number} has not started yet; waiting")
                waits = True
        time.sleep(PAUSE)
    context.screen.close_line()
    if answer.state != "ended":
        what = {"left": "has not run", "running": "still runs"}[answer.state]
        context.screen.note(f"unit {number} {what}")
    elif answer.code:
        raise JobFailed(answer.code, job)


class _End:
    """Keeps the last lines of a log, at most `MOST_BYTES`."""

    def __init__(self, lines: int) -> None:
        self._lines = lines
        self._kept = b""

    def add(self, data: bytes) -> None:
        """Take the next part of the log."""
        self._kept = (self._kept + data)[-MOST_BYTES:]

    @property
    def text(self) -> bytes:
        """Return the last lines."""
        return b"".join(self._kept.splitlines(keepends=True)[-self._lines :])


def _show_fetched(
    context: BoxContext, units: UnitJob, number: int, job: str, lines: int | None
) -> None:
    unit, folder = units.plan.units[number - 1], context.root / units.folder
    result = unit_results.read(folder, {number: unit.outputs}).get(number)
    path = folder / unit.outputs / unit_results.LOG
    screen = context.screen
    try:
        begin = 0 if lines is None else log.offset_of_last_lines(path, lines)
        log.show_log(path, screen.output, screen.output_gone, begin)
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(
            f"there is no output of unit {number} of job {job} here",
            next="inv map --failed runs the units that are not done",
        ) from None
    screen.close_line()
    if result is not None and result.code:
        raise JobFailed(result.code, job)
