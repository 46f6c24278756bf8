"""Find what a plan says of several boxes, and of boxes that are left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.errors import OneboxError, UsageError
from onebox.stages import deal, earlier_boxes, map_boxes, plan_units, sweep
from onebox.stages.plan_values import Plan, Refusal
from onebox.stages.planner import Planner

if TYPE_CHECKING:
    from onebox.context import BoxContext


def find(context: BoxContext, stages: Sequence[str], command: str) -> Plan:
    """
    Return the plan of `map` on several boxes: that of the first box, and all costs.

    Args:
        stages, command: Those of `Planner`.
    """
    units = context.chain.units
    assert units is not None
    dealt = deal.to_boxes(context, units, map_boxes.wanted(context))
    name, numbers = dealt[0]
    first = context.with_name(name)
    first.invocation = context.invocation
    first.outputs_folder = context.outputs_folder
    first.chain.part = first.chain.units = replace(units, numbers=numbers)
    try:
        plan = Planner(first, stages, command).plan()
        of_all = plan_units.find(context, plan.box)
        at_once = plan_units.find(first, plan.box)
    finally:
        first.close()
    if of_all is not None and at_once is not None:
        shown = () if units.waits_for else dealt
        of_all = replace(of_all, at_once=at_once.at_once, boxes=shown)
    box, refusals = plan.box, list(plan.refusals)
    try:
        deal.refuse_existing(context, dealt, but_temporary=True)
        cost = deal.cost(context, dealt)
        if box is not None:
            line = cost.describe(context.now())
            box = replace(box, cost_lines=(line, *box.cost_lines[1:]))
    except UsageError as error:
        if error.message not in [one.message for one in refusals]:
            refusals.append(_refusal("provision", error))
    except OneboxError:
        # The plan of the first box has the error.
        pass
    last = dealt[-1][0]
    boxes = formatting.count(len(dealt), "box", "boxes")
    dealt_to = f"{units.amount} on {boxes}; {name}: "
    if units.waits_for:
        dealt_to = f"at most {boxes}; "
    steps = [
        replace(step, reason=dealt_to + step.reason) if step.name == "run" else step
        for step in plan.steps
    ]
    return replace(
        plan,
        title=context.title_of(name if name == last else f"{name} … {last}"),
        box=box,
        steps=tuple(steps),
        units=of_all,
        notes=(*plan.notes, *sweep.notes(context, units)),
        refusals=tuple(refusals),
    )


def with_earlier_boxes(context: BoxContext, plan: Plan, *, own: bool) -> Plan:
    """
    Return the plan with a refusal if boxes of an earlier call still run units.

    Args:
        own: See `earlier_boxes.collect`.
    """
    busy = earlier_boxes.refusal(context, own=own)
    if busy is None:
        return plan
    refusal = _refusal("run", busy)
    # The plan of the first box may have found its job, without the other boxes.
    others = [
        one for one in plan.refusals if (one.step, one.exit) != ("run", busy.code)
    ]
    return replace(plan, refusals=(refusal, *others))


def _refusal(step: str, error: OneboxError) -> Refusal:
    return Refusal(step, error.message, error.next, error.code)
