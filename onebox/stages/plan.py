"""Print what a command line would do, stage by stage; `planner` finds it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from onebox.errors import OneboxError
from onebox.stages import earlier_boxes, map, map_boxes, plan_boxes, plan_print, sweep
from onebox.stages.plan_values import Plan
from onebox.stages.planner import Planner

if TYPE_CHECKING:
    from onebox.context import BoxContext

# The stages that a stage needs, in the order in which they run.
CHAIN = ("image", "provision", "push", "run")


def show(context: BoxContext, stage: str, command: str = "") -> None:
    """
    Print the plan of a stage and of the stages that it needs.

    A stage that an earlier plan of the command line has shown is not shown again.

    Args:
        command: The command that `run` would run; "" means the one that `[run] command`
            in onebox.toml gives.

    Raises:
        OneboxError: The stage would not start. The error is the one it would raise.
    """
    several = stage == "map" and map.on_several_boxes(context)
    own_job = stage
    if several:
        map_boxes.check(context)
    if stage == "map":
        # The job of `map` is planned as that of `run` is, with other words.
        units = sweep.choose(context, fetches=False)
        if units is None:
            context.screen.plan_line("map", "done", "up to date", map.UP_TO_DATE)
            return
        if units.sweep:
            waits_for = earlier_boxes.unfetched(context)
            context.chain.units = replace(units, waits_for=waits_for)
        stage = "run"
    elif stage == "run":
        context.chain.units = None
    if stage in CHAIN:
        stages = list(CHAIN[: CHAIN.index(stage) + 1])
    elif stage in ("fetch", "teardown"):
        stages = [stage]
    else:
        return
    stages = [stage] if context.invocation.only else stages
    planned = context.chain.planned
    stages = [name for name in stages if name not in planned]
    if stages:
        if several:
            plan = plan_boxes.find(context, stages, command)
        else:
            plan = find(context, stages, command)
        if own_job == "map":
            plan = plan_boxes.with_earlier_boxes(context, plan, own=several)
        plan_print.show(context, plan)
        planned.update(step.name for step in plan.steps)
        if plan.refusals:
            raise _first_error(context, plan)


def show_run(context: BoxContext, command: str = "") -> Plan:
    """
    Print the plan of `inv run`.

    If Python code has called onebox, the plan is returned without being printed, also
    if `run` would not start.

    Args:
        command: See `show`.

    Raises:
        OneboxError: `inv run` would not start.
    """
    with context.planning():
        context.invocation.begin("run", only=False, keep=False, own_command=command)
        plan = find(context, CHAIN, command)
        if context.invocation.from_python:
            return plan.spelled(context.screen.hints.spell)
        if context.screen.json:
            spelled = plan.spelled(context.screen.hints.spell)
            fields = {**vars(spelled), "exit": plan.exit_code}
            # `plan map` prints no document.
            del fields["units"]
            context.screen.print_json("plan", fields)
        else:
            plan_print.show(context, plan)
        if plan.refusals:
            raise _first_error(context, plan)
    return plan


def find(context: BoxContext, stages: Sequence[str], command: str = "") -> Plan:
    """
    Return the plan of some stages in their order.

    Args:
        command: See `show`.
    """
    return Planner(context, stages, command).plan()


def _first_error(context: BoxContext, plan: Plan) -> OneboxError:
    """Return the error of the first refusal, in short if the plan is on the screen."""
    first, screen = plan.refusals[0], context.screen
    error = OneboxError(first.message, next=first.next)
    if screen.out.is_terminal and screen.live and not screen.json:
        mark = screen.marks["failed"]
        error = OneboxError(f"it would not start; the lines with {mark} say why")
    error.code = first.exit
    return error
