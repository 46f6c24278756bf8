"""Tear down a temporary box at the end of its chain, unless something needs it."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.agent.file_names import printable
from onebox.boxes import delete
from onebox.errors import (
    Busy,
    HostKeyMismatch,
    JobFailed,
    Lost,
    OneboxError,
    OutputsHeld,
    UsageError,
)
from onebox.jobs import bill, run_record
from onebox.providers.values import Box
from onebox.signals import signals_delayed
from onebox.stages import held_outputs, preemption_recovery, queue, teardown

if TYPE_CHECKING:
    from onebox.context import BoxContext


def settle(context: BoxContext, error: OneboxError | None) -> None:
    """
    Tear down a chain's temporary box at the chain's end.

    The box stays if some of its outputs are not fetched, or if it cannot be reached.

    Args:
        error: The error that ended the chain, None if it succeeded.
    """
    invocation, record = context.invocation, context.store.record
    # If the chain ended with any error but JobFailed, the error message already names
    # the box that is still up.
    completed = error is None or isinstance(error, JobFailed)
    invocation.leaves_box = invocation.leaves_box and completed
    if not invocation.owes_teardown(record.temporary):
        if error is None:
            _remove_superseded(context)
        invocation.leaves_box = invocation.leaves_box or (
            completed and _leaves_box_up(context)
        )
        if invocation.leaves_box:
            _show_receipt(context, _billed_from(context), kept=True)
        return
    if isinstance(error, (OutputsHeld, Lost, HostKeyMismatch)):
        return
    refused = isinstance(error, (UsageError, Busy))
    waited = bool(context.chain.turn_came)
    if refused and not invocation.created_box and not waited:
        # A command line that was refused must not remove a box that an earlier command
        # line created.
        return
    # A run that has waited for its turn has taken over the box from the run before.
    may_keep = (completed or waited) and "teardown" not in invocation.stages
    if may_keep and queue.keeps_box(context):
        _remove_superseded(context)
        _show_receipt(context, _billed_from(context))
        return
    try:
        _remove_temporary_box(context, failed=error is not None)
    except OneboxError as teardown_error:
        if error is None:
            raise
        # The error that ended the chain is reported. The error of the teardown is only
        # printed as a note.
        context.screen.note(teardown_error.message)


def print_kept_box(context: BoxContext) -> None:
    """Print the box that a finished command line leaves up, if it leaves one."""
    box = context.find_box() if context.invocation.leaves_box else None
    if box is None:
        return
    detail = f"{box.id}, {formatting.rate(box.offer.hourly)}"
    holder = None if context.store.locked else context.store.holder()
    if holder is not None:
        # That command decides whether the box stays.
        off = formatting.off(box.deadline, time.time())
        user = f'pid {holder.pid} "{printable(holder.command)}" uses it'
        detail += f", {off}; {user}"
        context.screen.print_stage("box", "kept", "in use", detail)
        return
    invocation = context.invocation
    is_left = invocation.created_box or "push" in invocation.stages
    if is_left and context.store.record.temporary:
        # The line that is printed now says that the box is kept, so a later run must
        # not remove it. An earlier chain may have created the box for its job.
        context.store.update(temporary=False)
    detail += f", {_powers_off(context, box)}"
    context.screen.print_stage("box", "kept", "kept", detail)


def _powers_off(context: BoxContext, box: Box) -> str:
    """Return a phrase that says when a box powers itself off, and how to remove it."""
    idle = context.settings.limits.idle_minutes
    off = formatting.off(box.deadline, time.time())
    if not box.deadline:
        return off
    return f"{off}, or after {idle:g} min without job and client: inv teardown"


def _remove_temporary_box(context: BoxContext, *, failed: bool) -> None:
    """Remove the chain's temporary box and print the receipt of its job."""
    box, record = context.boxes.refresh(), context.store.record
    if box is None and context.store.open_intents():
        # An earlier command was killed before it could record the result of an action,
        # such as the removal of the box. `perform` completes that action.
        teardown.perform(context, end_run=False)
    if box is None:
        return
    if box.state != "running" and not held_outputs.is_known_to_be_fetched(context, box):
        return
    # If the box was found only by its tags, it is unknown whether a job ran on it. Its
    # outputs are then checked.
    recorded = context.invocation.created_box or record.temporary
    created = _billed_from(context)
    unused = recorded and not (record.job or record.session)
    unused = unused and context.store.sessions.mark(box.id) == ""
    if not _is_kept_for_command(context, box):
        try:
            teardown.perform(
                context, after_failure=failed, unused=unused, end_run=False
            )
        except teardown.InUse:
            # The command has begun while the outputs were checked.
            _is_kept_for_command(context, box)
    _show_receipt(context, created)


def _is_kept_for_command(context: BoxContext, box: Box) -> bool:
    """Return whether a command of the user's keeps the box; if so, print that."""
    commands = context.store.sessions.commands(box.id)
    if box.state != "running" or not commands:
        return False
    _remove_superseded(context)
    context.screen.print_stage(
        "box",
        "kept",
        "kept",
        f"{box.id}, {formatting.rate(box.offer.hourly)}: "
        f"{teardown.describe_command(commands)}; {_powers_off(context, box)}",
    )
    return True


def _show_receipt(context: BoxContext, created: float, *, kept: bool = False) -> None:
    if context.chain.receipt is not None:
        shared = context.chain.turn_came >= created
        bill.show(context, context.chain.receipt, created, shared=shared, kept=kept)


def _billed_from(context: BoxContext) -> float:
    """Return the time from which this run's cost is counted (epoch seconds)."""
    created = context.store.record.created or context.now()
    # The time before belongs to the run that used the box.
    return max(created, context.chain.turn_came)


def _remove_superseded(context: BoxContext) -> None:
    """
    Remove the disks of a job's earlier attempts once the job's outputs are fetched.

    The box of the last attempt stays.
    """
    run, record = run_record.read(context), context.store.record
    if context.chain.receipt is None or run is None or not run.attempts[1:]:
        return
    try:
        box = context.boxes.refresh()
        if box is None or box.id != record.box or not record.fetched:
            return
        for disk in context.boxes.preempted:
            if preemption_recovery.is_superseded(context, disk):
                with context.screen.stage("teardown") as stage_line, signals_delayed():
                    delete.delete(context, disk)
                    stage_line.end("", f"{disk.id}, of an earlier attempt: gone")
        context.boxes.refresh()
    except OneboxError as error:
        # The job has not failed, so no error is raised. The next teardown tries again.
        context.screen.note(f"a disk of an earlier attempt stays: {error.message}")


def _leaves_box_up(context: BoxContext) -> bool:
    """
    Return whether the command line used a box that is still up.

    The result is False for a plan, and if the command line has detached a job.
    """
    if (
        context.invocation.detached
        or context.invocation.dry
        or not context.invocation.box_used
    ):
        return False
    with suppress(OneboxError):
        box = context.find_box()
        return box is not None and box.state == "running"
    return False
