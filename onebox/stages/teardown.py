"""Leave nothing behind: outputs are here, tags match, and the box is proven gone."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.boxes import bring_up, lifecycle, other_providers, power
from onebox.errors import (
    BoxFailed,
    ConnectionLost,
    HostKeyMismatch,
    JobFailed,
    Lost,
    OneboxError,
    OutputsHeld,
    UsageError,
)
from onebox.jobs import checkpoints, client, receipt, run_history
from onebox.providers.base import Box
from onebox.signals import held
from onebox.stages import fetch, preemption_recovery
from onebox.transfer import fetch_outputs

if TYPE_CHECKING:
    from onebox.context import BoxContext

# A box whose outputs are given up is given so long to say what they are.
ANSWER_SECONDS = 10.0


def reason(context: BoxContext) -> str | None:
    """Say what there is to remove, or None."""
    box = context.box
    return None if box is None else f"{box.id} is {box.state}"


def perform(
    context: BoxContext,
    *,
    discard: bool = False,
    yes: bool = False,
    after: bool = False,
    empty: bool = False,
    end_run: bool = True,
) -> None:
    """
    Remove the box, once its outputs are verified here.

    Args:
        discard: Give up outputs that are not here.

        yes: Do not ask before giving them up.

        after: It comes after a failure, which is what the user has to hear of.

        empty: Nothing was ever done on the box: there is nothing to ask it.

        end_run: Forget an interrupted run as well, so that the next one starts
            from its beginning. Only the user may ask for that.

    Raises:
        OutputsHeld: There are outputs that are not here: what holds them stays.
    """
    context.lock()
    lifecycle.recover(context)
    context.superseded.clear()
    box = context.look_again()
    if box is None:
        other_providers.refuse(context)
        last = context.store.record.box
        lifecycle.tidy(context, [last] if last else [])
        context.store.forget()
        context.choose_provider()
        context.forget_connection()
        context.screen.line("teardown", "done", "up to date", "nothing is there")
        _say_others(context)
        if end_run:
            _end_run(context)
        return
    with power.off_again(context, box):
        if not discard and not empty:
            box = _read(context, box)
        left = _remove(context, box, discard=discard, yes=yes, empty=empty)
    if end_run and not left:
        _end_run(context)
    if left and not after:
        raise OutputsHeld(
            f"the job has not ended since the cloud took {formatting.some(left)}: what "
            "is "
            "on that disk is not here, so it stays",
            next="inv fetch --rescue teardown, or inv teardown --discard-outputs",
        )


def _say_others(context: BoxContext) -> None:
    """Name the boxes of this project that have another name."""
    with suppress(OneboxError):
        for box in context.provider.find(context.owner):
            if box.tags.project == context.project:
                context.screen.note(
                    f"{context.settings.project}/{box.tags.name} ({box.id}) is "
                    f"{box.state}: inv teardown --name={box.tags.name}"
                )


def _read(context: BoxContext, box: Box) -> Box:
    """
    Fetch from a box that is off, if it has to be started to be asked anyway.

    Nobody is made to pay for a machine that is started only to say no.
    """
    record = context.store.record
    known = record.box == box.id and (record.fetched or not record.job)
    if box.state != "stopped" or box.disk_only or known or record.discarded:
        return box
    fetch.perform(context, started_by="teardown")
    return context.look_again() or box


def _remove(
    context: BoxContext, box: Box, *, discard: bool, yes: bool, empty: bool
) -> list[str]:
    """Remove the box once nothing on it is missing here; return what has to stay."""
    with context.timed("teardown"), context.screen.stage("teardown") as line:
        others = context.others
        line.doing("checking that the outputs are here")
        if not discard and not empty:
            _outputs_are_here(context, box, line.doing)
        elif discard and not yes and not _nothing_to_lose(context, box, others):
            _may_discard(context, [box, *others])
        # An earlier attempt's disk goes once a later one has made it worthless.
        worthless = [
            o for o in others if discard or preemption_recovery.superseded(context, o)
        ]
        for one in [*worthless, box]:
            line.doing(f"removing {one.id}")
            with held():
                # From here on it is one call: a key press waits for its answer.
                lifecycle.remove(context, one)
        left = [one.id for one in others if one not in worthless]
        gone = [one.id for one in [box, *worthless]]
        lifecycle.tidy(context, gone)
        context.end_with_box()
        line.end("", f"{formatting.some(gone)}: machine, disk, keys: gone")
    return left


def _end_run(context: BoxContext) -> None:
    """Forget the attempts at a job; say so if it had not ended."""
    run = run_history.read(context)
    run_history.forget(context)
    if run is not None and run.attempts and not run.ended:
        pull = checkpoints.pulls(context).latest(run.id)
        kept = "" if pull is None else "; its checkpoints stay in .onebox/checkpoints"
        context.screen.note(
            f"the interrupted run of job {run.id} is given up: inv run starts from "
            f"the beginning{kept}"
        )


def settle(context: BoxContext, error: OneboxError | None) -> None:
    """Tear down what a chain made for itself, unless something is still on it."""
    line = context.line
    # Of any other error it is said what is still up.
    done = error is None or isinstance(error, JobFailed)
    line.stays = line.stays and done
    if not line.owes_teardown(context.store.record.ours_to_end):
        if error is None:
            _end_worthless(context)
        line.stays = line.stays or (done and _is_up(context))
        return
    if isinstance(error, (OutputsHeld, Lost, HostKeyMismatch)):
        return
    if isinstance(error, UsageError) and not context.line.made_box:
        # A line that was refused has no business with what an earlier one has left.
        return
    try:
        _end(context, failed=error is not None)
    except OneboxError as refused:
        if error is None:
            raise
        # What came first is what the user has to hear of.
        context.screen.note(refused.message)


def _end(context: BoxContext, *, failed: bool) -> None:
    """Remove the chain's own box, and say what it all took."""
    box, record = context.look_again(), context.store.record
    if box is None and context.store.open_intents():
        # Removed by a command that was killed before it could write that down.
        perform(context, end_run=False)
    if box is None or (box.state != "running" and record.job and not record.fetched):
        return
    # Of a box that was found by its tags alone nobody knows what is on it.
    ours = context.line.made_box or record.ours_to_end
    created = record.created or context.now()
    empty = ours and not record.job
    perform(context, after=failed, empty=empty, end_run=False)
    if context.chain.receipt is not None:
        receipt.show(context, context.chain.receipt, created)


def perform_all(context: BoxContext, *, discard: bool, yes: bool) -> None:
    """Tear down every box of this project, each by its own rules."""
    names = sorted(
        {
            box.tags.name
            for box in context.provider.find(context.owner)
            if box.tags.project == context.project
        }
    )
    refused: list[OneboxError] = []
    for name in names:
        try:
            with context.screen.about(name):
                perform(context.called(name), discard=discard, yes=yes)
        except OneboxError as error:
            context.screen.note(f"{context.settings.project}/{name}: {error.message}")
            refused.append(error)
    for one in (others := other_providers.find(context)):
        other_providers.tell(context, one, context.screen.note)
    if refused:
        raise refused[0]
    if not names and not others:
        lifecycle.tidy(context)
        context.screen.line("teardown", "done", "up to date", "nothing is there")


def _outputs_are_here(
    context: BoxContext, box: Box, doing: Callable[[str], None] = lambda text: None
) -> None:
    record = context.store.record
    if record.discarded:
        return
    if box.state == "stopped":
        if record.box == box.id and (record.fetched or not record.job):
            _still_here(context)
            return
        raise OutputsHeld(
            f"of {box.id} only the disk is left, and nobody knows whether its "
            "outputs are here; nothing was removed",
            next="inv fetch --rescue teardown, or inv teardown --discard-outputs",
        )
    try:
        box = bring_up.ready(context, box, doing)
    except (BoxFailed, ConnectionLost) as error:
        raise _silent(box, error) from error
    try:
        latest = client.latest(context)
        if latest is None:
            return
        if latest.runs:
            raise UsageError(
                f"job {latest.job} still runs on {context.title} ({box.id})",
                next="inv logs, inv cancel, or inv teardown --discard-outputs",
            )
        into = context.root / (record.into or record.job_into or context.into)
        compared = fetch.compare(context, into)
        missing = compared.missing
        if not missing:
            client.bring_log(context, box, latest)
    except ConnectionLost as error:
        raise _silent(box, error) from error
    if missing:
        raise OutputsHeld(
            f"outputs on {box.id} are not here: {missing}; nothing was removed",
            next="inv fetch teardown, or inv teardown --discard-outputs",
        )
    held = fetch.left_alone(context, compared.left, latest.record)
    if held is not None:
        raise held


def _silent(box: Box, error: OneboxError) -> OutputsHeld:
    return OutputsHeld(
        f"{box.id} does not answer ({error.message}), so nobody knows "
        "whether its outputs are here; nothing was removed",
        next="inv teardown later, or inv teardown --discard-outputs",
    )


def _still_here(context: BoxContext) -> None:
    """Raise OutputsHeld if what was fetched of a box that is off is not here now."""
    record = context.store.record
    if not record.fetched:
        return
    into = context.root / (record.into or context.into)
    missing = fetch_outputs.changed_here(into, context.memory)
    if missing:
        raise OutputsHeld(
            f"outputs of {record.box} were fetched, but are not as they were in "
            f"{into}: {missing}; nothing was removed",
            next="inv fetch teardown, or inv teardown --discard-outputs",
        )


def _nothing_to_lose(context: BoxContext, box: Box, others: list[Box]) -> bool:
    """Tell whether all outputs are here; of a box that is silent nobody knows."""
    record = context.store.record
    known = record.box == box.id and (record.fetched or not record.job)
    if not all(preemption_recovery.superseded(context, other) for other in others):
        return False
    if box.state == "stopped" and not known:
        # No machine is started only to be asked.
        return False
    with suppress(OneboxError):
        if box.state != "stopped":
            context.ssh(box).channel(within=ANSWER_SECONDS)
        _outputs_are_here(context, box)
        return True
    return False


def _may_discard(context: BoxContext, boxes: list[Box]) -> None:
    ids = formatting.some([box.id for box in boxes])
    lost = f"Outputs on {ids} that are not here will be lost"
    running = _running_job(context)
    if running:
        lost += f", and job {running}, which still runs there, ends"
    if not context.screen.ask(f"{lost}. Type the box's id to go on:", boxes[0].id):
        raise UsageError(
            f"not confirmed; {ids} and its outputs are untouched",
            next="inv teardown --discard-outputs --yes",
        )


def _running_job(context: BoxContext) -> str:
    """Return the job that runs on the box, "" if none does or the box is silent."""
    with suppress(OneboxError):
        if context.box is not None and context.box.state == "running":
            context.ssh(context.box).channel(within=ANSWER_SECONDS)
            latest = client.latest(context)
            return latest.job if latest is not None and latest.runs else ""
    return ""


def _end_worthless(context: BoxContext) -> None:
    """Remove what earlier attempts have left, though the last one's box stays."""
    run, record = run_history.read(context), context.store.record
    if context.chain.receipt is None or run is None or not run.attempts[1:]:
        return
    try:
        box = context.look_again()
        if box is None or box.id != record.box or not record.fetched:
            return
        for one in context.others:
            if preemption_recovery.superseded(context, one):
                with context.screen.stage("teardown") as line, held():
                    lifecycle.remove(context, one)
                    line.end("", f"{one.id}, of an earlier attempt: gone")
        context.look_again()
    except OneboxError as error:
        # The job has ended well: the next teardown comes back to that disk.
        context.screen.note(f"a disk of an earlier attempt stays: {error.message}")


def _is_up(context: BoxContext) -> bool:
    """Tell whether a box that the line has used is up, with no detached job on it."""
    if context.line.detached or context.line.dry or not context.line.box_used:
        return False
    with suppress(OneboxError):
        box = context.box
        return box is not None and box.state == "running"
    return False


def say_kept(context: BoxContext) -> None:
    """Say at the end of a line that it leaves a box up, if it does."""
    box = context.box if context.line.stays else None
    if box is not None:
        off = formatting.clock(box.deadline, time.time())
        context.screen.line(
            "box",
            "kept",
            "kept",
            f"{box.id}, {formatting.rate(box.offer.hourly)}, powers itself off at "
            f"{off}: inv teardown",
        )
