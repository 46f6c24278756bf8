"""Print what each stage would do, and why; change nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from onebox.boxes import announcement
from onebox.jobs import remote_job
from onebox.project_files import output_roots
from onebox.stages import (
    environment,
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
    Print the plan's line for one stage.

    For `run`, the lines for the fetch and the teardown that follow the job are printed
    too.

    Args:
        command: The command that `run` would run; "" means the one that `[run] command`
            in onebox.toml gives.

    Raises:
        OneboxError: The stage itself would fail with this error.
    """
    if stage not in _REASONS:
        return
    if stage in ("image", "provision"):
        announcement.announce(context)
    if stage == "image" and "image" not in context.invocation.stages:
        outdated = image.describe_outdated(context)
        if outdated:
            context.screen.plan_line(stage, "kept", "out of date", outdated)
            return
    reason = _REASONS[stage](context)
    if stage == "run" and reason is not None:
        command = command or context.settings.run.command or ""
        reason = preemption_recovery.describe_resume(context, command) or reason
    if reason is None:
        context.screen.plan_line(
            stage, "done", "up to date", _UP_TO_DATE[stage](context)
        )
    else:
        left_out = push.describe_left_out(context) if stage == "push" else ""
        detail = "; ".join(filter(None, [reason, left_out]))
        context.screen.plan_line(stage, "kept", "would run", detail)
    if stage == "push":
        update = environment.find_update(context, context.find_box())
        if update is not None:
            context.screen.plan_line("packages", "kept", "would run", update.reason)
    if stage == "run" and reason is not None and not context.invocation.only:
        _show_end_of_chain(context)


def show_run(context: BoxContext) -> None:
    """Print the plan of `inv run`."""
    with context.planning():
        context.invocation.begin("run", only=False, keep=False, own_command=False)
        if run.reason(context) is None:
            show(context, "run")
            return
        for stage in ("image", "provision", "push", "run"):
            show(context, stage)


def _show_end_of_chain(context: BoxContext) -> None:
    """Print what follows the job: the fetch, and whether the box is torn down."""
    outputs = ", ".join(output_roots(context)) or "no [fetch] outputs are configured"
    context.screen.plan_line("fetch", "kept", "would run", outputs)
    if context.find_box() is None and context.invocation.creates_temporary_box:
        reason = "the chain creates the box for this job only"
    elif not context.invocation.owes_teardown(context.store.record.temporary):
        context.screen.plan_line("teardown", "done", "would not run", "the box is kept")
        return
    elif "teardown" in context.invocation.stages:
        reason = "teardown is on the command line"
    else:
        reason = "an earlier chain created the box for its job only"
    context.screen.plan_line("teardown", "kept", "would run", reason)


def _run_reason(context: BoxContext) -> str | None:
    reason = run.reason(context)
    if reason is not None:
        run.check(context)
        box = context.find_box()
        if box is not None and box.state == "running":
            remote_job.refuse_running(context, remote_job.latest(context))
    return reason


_REASONS: dict[str, Callable[[BoxContext], str | None]] = {
    "image": image.reason,
    "provision": provision.reason,
    "push": push.reason,
    "run": _run_reason,
    "fetch": fetch.reason,
    "teardown": teardown.reason,
}
_UP_TO_DATE: dict[str, Callable[[BoxContext], str]] = {
    "image": image.describe_up_to_date,
    "provision": provision.describe_up_to_date,
    "push": push.describe_left_out,
    "run": lambda context: "command, code, data and image unchanged",
    "fetch": lambda context: "",
    "teardown": lambda context: "no box is left",
}
