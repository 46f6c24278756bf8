"""Print a plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onebox import formatting
from onebox.stages import plan_push
from onebox.stages.plan_values import Plan, PlannedBox, PlannedStep

if TYPE_CHECKING:
    from collections.abc import Iterable

    from onebox.boxes.priced_offer import PricedOffer
    from onebox.context import BoxContext

_MARKS = {
    "run": "kept",
    "up to date": "done",
    "no": "done",
    "later": "kept",
    "refuse": "failed",
    "unknown": "warn",
}
# So many units are listed on a terminal.
MOST_UNITS = 20
# So many numbers of the units of one box are listed.
MOST_NUMBERS = 10
_RESULTS = {
    "run": "would run",
    "up to date": "up to date",
    "no": "would not run",
    "later": "out of date",
    "refuse": "would refuse",
    "unknown": "unknown",
}


def show(context: BoxContext, plan: Plan) -> None:
    """Print a plan to stdout."""
    screen = context.screen
    if plan.box is not None:
        subject = f"{plan.title}   {plan.provider}"
        lines = [*plan.box.cost_lines, *_alternatives(plan.box)]
        screen.plan_headline([subject, *plan.box.headline], lines)
    elif "run" in [step.name for step in plan.steps if step.action != "up to date"]:
        screen.plan_headline([plan.title, plan.provider, plan.size], [])
    for step in plan.steps:
        name = "map" if step.name == "run" and plan.units is not None else step.name
        refusals = [one for one in plan.refusals if one.step == step.name]
        if not refusals:
            screen.plan_line(
                name,
                _MARKS[step.action],
                _RESULTS[step.action],
                _reason(plan, step),
            )
        for refusal in refusals:
            screen.plan_line(name, "failed", "would refuse", refusal.message)
            if refusal.next:
                for n, line in enumerate(refusal.next.splitlines()):
                    screen.plan_detail(f"{'      ' if n else 'next: '}{line}")
        if step.name == "push" and plan.push is not None:
            size = plan_push.describe_size(plan.push)
            if size:
                screen.plan_detail(size)
        if name == "map" and plan.units is not None and not refusals:
            # In a pipe, all units are listed.
            most = MOST_UNITS if screen.out.is_terminal else plan.units.count
            for number, command in plan.units.commands[:most]:
                screen.plan_detail(f"{number}: {formatting.path(command)}")
            if plan.units.count > most:
                screen.plan_detail(f"and {plan.units.count - most:,} more")
            for box, numbers in plan.units.boxes:
                count = formatting.count(len(numbers), "unit")
                first = formatting.first_names([*map(str, numbers)], MOST_NUMBERS)
                screen.plan_detail(f"{box}: {count} ({first})")
    for warning in plan.warnings:
        screen.plan_line("warning", "warn", warning, "")
    for note in plan.notes:
        screen.plan_line("note", "warn", "worth knowing", note)
    for question in plan.questions:
        screen.plan_line("question", "warn", "at a terminal", question)


def _reason(plan: Plan, step: PlannedStep) -> str:
    if step.name == "run" and plan.units is not None:
        return step.reason
    if step.name == "run" and step.action == "run" and plan.command:
        return f"{formatting.path(plan.command)} ({step.reason})"
    if step.name == "fetch" and plan.checkpoints and step.action == "run":
        names = formatting.first_names(list(plan.checkpoints))
        return f"{step.reason} (during the job too: {names})"
    return step.reason


def _alternatives(box: PlannedBox) -> Iterable[str]:
    """Yield the lines with other machine types, other sizes and the limits."""
    if box.other_types:
        yield f"other types: {', '.join(map(_priced, box.other_types))}"
    if box.other_sizes:
        sizes = [f"{offer.size}: {_priced(offer)}" for offer in box.other_sizes]
        yield f"other sizes: {', '.join(sizes)}"
    if box.offer.machine_hourly_usd != 0:
        limits = [f"max_hours = {box.max_hours:g}"]
        for name, value in (
            ("max_cost", box.max_cost_usd),
            ("max_price", box.max_hourly_usd),
        ):
            limits += [] if value is None else [f"{name} = {formatting.money(value)}"]
        yield f"[limits] {', '.join(limits)}"


def _priced(offer: PricedOffer) -> str:
    spot = " spot" if offer.spot else ""
    return f"{offer.type}{spot} {formatting.rate(offer.machine_hourly_usd)}"
