"""Find what a plan says of the units of `map`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onebox import formatting
from onebox.stages.plan_values import PlannedUnits

if TYPE_CHECKING:
    from onebox.context import BoxContext
    from onebox.stages.plan_values import PlannedBox


def find(context: BoxContext, box: PlannedBox | None) -> PlannedUnits | None:
    """Return the units that `map` would run, None for another plan."""
    job = context.chain.units
    if job is None:
        return None
    if job.waits_for:
        return PlannedUnits(0, len(job.plan.units), None, ())
    commands = []
    for unit in job.units:
        line = unit.command
        text = line if isinstance(line, str) else formatting.shell_line(line)
        commands.append((unit.number, text))
    return PlannedUnits(
        len(job.numbers), len(job.plan.units), _at_once(context, box), (*commands,)
    )


def describe(context: BoxContext, box: PlannedBox | None) -> str:
    """Return how many units `map` runs, and how many at once; "" for another plan."""
    job, table = context.chain.units, context.settings.map
    if job is None:
        return ""
    if job.waits_for:
        return (
            f"the outputs on {job.waits_for} are fetched first; it is known then which "
            "units are left"
        )
    each = formatting.count(table.cpus, "CPU")
    if table.memory:
        each += f" and {formatting.byte_count(table.memory)}"
    text = f"{job.amount}, each with {each}"
    at_once = _at_once(context, box)
    if at_once is None or box is None:
        return text
    return f"{text}: {at_once} at once on {formatting.count(box.offer.cpus, 'CPU')}"


def _at_once(context: BoxContext, box: PlannedBox | None) -> int | None:
    """Return how many units the box runs at once, as the agent computes it."""
    job, table = context.chain.units, context.settings.map
    if box is None or job is None:
        return None
    slots = box.offer.cpus // table.cpus
    if table.memory:
        slots = min(slots, box.offer.memory_bytes // table.memory)
    return min(max(slots, 1), len(job.numbers))
