"""Say what would happen, and why; change nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from onebox.boxes import offers
from onebox.jobs import client
from onebox.jobs.output_paths import roots
from onebox.stages import (
    fetch,
    image,
    preemption_recovery,
    provision,
    push,
    run,
    teardown,
)

if TYPE_CHECKING:
    from onebox.context import BoxContext


def show(context: BoxContext, stage: str, command: str = "") -> None:
    """
    Print one stage's line of the plan; for `run`, those of the whole chain's end.

    Args:
        command: What `run` would run, if that is not [run] command.

    Raises:
        OneboxError: The stage would be refused; the run would say the same.
    """
    if stage not in _REASONS:
        return
    if stage in ("image", "provision"):
        offers.announce(context)
    why = _REASONS[stage](context)
    if stage == "run" and why is not None:
        command = command or context.settings.run.command or ""
        why = preemption_recovery.resumes(context, command) or why
    if why is None:
        _line(context, stage, "done", "up to date", _UP_TO_DATE[stage](context))
    else:
        stays = push.stays_here(context) if stage == "push" else ""
        detail = "; ".join(filter(None, [why, stays]))
        _line(context, stage, "kept", "would run", detail)
    if stage == "run" and why is not None and not context.line.only:
        _end_of_chain(context)


def whole(context: BoxContext) -> None:
    """Print the plan of `inv run`."""
    with context.planning():
        context.line.begin("run", only=False, keep=False, own_command=False)
        if run.reason(context) is None:
            show(context, "run")
            return
        for stage in ("image", "provision", "push", "run"):
            show(context, stage)


def _end_of_chain(context: BoxContext) -> None:
    outputs = ", ".join(roots(context)) or "no [fetch] outputs are configured"
    _line(context, "fetch", "kept", "would run", outputs)
    if context.box is None and context.line.makes_for_itself:
        _line(
            context,
            "teardown",
            "kept",
            "would run",
            "the chain makes the box for itself",
        )
    elif context.line.owes_teardown(context.store.record.ours_to_end):
        why = "a chain has made the box for itself"
        if "teardown" in context.line.named:
            why = "the line asks for it"
        _line(context, "teardown", "kept", "would run", why)
    else:
        _line(context, "teardown", "done", "would not run", "the box is kept")


def _line(context: BoxContext, stage: str, mark: str, result: str, detail: str) -> None:
    context.screen.plan_line(stage, mark, result, detail)


def _run_reason(context: BoxContext) -> str | None:
    why = run.reason(context)
    if why is not None:
        run.check(context)
        if context.box is not None and context.box.state == "running":
            client.refuse_running(context, client.latest(context))
    return why


def _nothing(context: BoxContext) -> str:
    return ""


_REASONS: dict[str, Callable[[BoxContext], str | None]] = {
    "image": image.reason,
    "provision": provision.reason,
    "push": push.reason,
    "run": _run_reason,
    "fetch": fetch.reason,
    "teardown": teardown.reason,
}
_UP_TO_DATE: dict[str, Callable[[BoxContext], str]] = {
    "image": image.up_to_date,
    "provision": provision.up_to_date,
    "push": push.stays_here,
    "run": lambda context: "command, code, data and image unchanged",
    "fetch": _nothing,
    "teardown": lambda context: "nothing is there",
}
