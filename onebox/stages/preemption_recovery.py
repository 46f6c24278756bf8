"""
Have a job's next attempt ready when the cloud has taken the box of the last one.

The rule that keeps every result: while the box still answers, its checkpoints
and outputs come here, and then it goes. The disk of a box that is off is read
where that costs nothing. Where it would take another paid machine the disk
stays, beside the next box, until the job has ended by itself and its outputs are
here; the next attempt goes on from the last checkpoints that were pulled.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.boxes import lifecycle, power
from onebox.errors import (
    BoxFailed,
    Lost,
    NoCapacity,
    OutputsHeld,
    Preempted,
    ProviderError,
)
from onebox.jobs import checkpoints, client, preemption, run_history
from onebox.jobs.run_history import Run
from onebox.providers.base import Box
from onebox.remote.answers import JobStatus
from onebox.stages import provision, push, salvage

if TYPE_CHECKING:
    from onebox.context import BoxContext
    from onebox.ui.progress import StageLine


def begin(
    context: BoxContext, command: str, before: JobStatus | None
) -> tuple[Run, bool]:
    """
    Return the run that a job belongs to, and whether it starts on an empty box.

    It is that of an earlier line if the cloud has taken the box of the same
    command, and nothing has ended that since.

    Args:
        before: The status of the latest job on this box, if there was one.
    """
    told = run_history.read(context)
    if told is None or told.ended or told.command != command or not told.attempts:
        return Run(command), False
    if before is None:
        return told, True
    unended = before.state == "lost" or before.cause in run_history.TAKEN
    if told.has(before.job) and unended:
        return told, False
    return Run(command), False


def resumes(context: BoxContext, command: str) -> str:
    """Say from where a job would go on if it ran now, "" if from its beginning."""
    box, before = context.box, None
    if box is not None and box.state == "running":
        before = client.latest(context)
    run, anew = begin(context, command, before)
    if not run.attempts:
        return ""
    if not anew or (box is not None and box.state != "running" and not box.disk_only):
        return f"goes on with the run of job {run.id}, from what is on its box"
    pull = checkpoints.pulls(context).latest(run.id)
    if pull is None:
        return f"starts again: no checkpoints of job {run.id} have come here"
    return f"goes on with the run of job {run.id}, from {checkpoints.describe(pull)}"


def refusal(context: BoxContext, run: Run, box: Box, tries: int) -> str:
    """Say why a job is not started again, "" if it is."""
    limits = context.settings.limits
    if not box.offer.spot:
        return "only jobs on spot capacity are started again"
    if context.line.only:
        return "--only starts nothing again"
    if tries > limits.retries:
        return f"[limits] retries = {limits.retries}"
    spent = run_history.account(run, box).cost
    if limits.max_cost is None:
        return ""
    hourly = box.offer.hourly
    worst = None if hourly is None else hourly * limits.max_hours
    if spent is None or worst is None or spent + worst > limits.max_cost:
        return (
            f"{formatting.money(spent)} is spent, and another attempt could cost "
            f"{formatting.money(worst)} more: [limits] max_cost = "
            f"{formatting.money(limits.max_cost)}"
        )
    return ""


def next_box(context: BoxContext, run: Run, box: Box, tries: int) -> tuple[Box, int]:
    """
    See to the box that was taken, and have another one ready for the job.

    Returns the box, and which attempt it is for: a box can be taken before its
    job has begun.

    Raises:
        Preempted: There have been as many attempts as there may be.

        NoCapacity: There is no room for the next one now.
    """
    if not context.line.owes_teardown(context.store.record.ours_to_end):
        # It was not the chain's to end; nor is the one in its place.
        context.line.box_wanted = True
    _leave(context, run, box)
    while True:
        tries += 1
        # The next box may be of another type, and dearer: all together count.
        context.spent_before = run_history.account(run, box).cost
        try:
            provision.perform(context)
            push.perform(context)
            fresh = context.running_box()
            restore(context, run, fresh)
            return fresh, tries
        except NoCapacity as error:
            error.next = f"{_goes_on(context, run)}, once there is room; {error.next}"
            raise
        except (Lost, Preempted):
            fresh_one = context.look_again()
            if fresh_one is not None:
                if not preemption.taken(context, fresh_one):
                    raise
                box = fresh_one
                # No job has begun on it.
                _remove(context, box)
            why = refusal(context, run, box, tries)
            if why:
                raise given_up(context, run, box, why) from None
            context.screen.note("taken back before the job had begun; once more")


def restore(context: BoxContext, run: Run, box: Box) -> None:
    """Put the run's newest checkpoints on an empty box, or say that there are none."""
    with context.timed("restore"):
        pull = checkpoints.put_back(context, box, run.id)
    if pull is None:
        why = "no checkpoints have come here"
        if not context.settings.fetch.checkpoints:
            why = "[fetch] checkpoints names none"
        context.screen.note(f"{why}: the job starts from its beginning")


def given_up(context: BoxContext, run: Run, box: Box, why: str) -> Preempted:
    """Return the error that ends a run whose box was taken, and what is to do now."""
    try:
        now = context.provider.get(box.id, box.place)
    except ProviderError:
        now = box
    pull = checkpoints.pulls(context).latest(run.id)
    crashed = now is not None and now.why == "poweroff"
    how = "crashed" if crashed else "was taken back by the provider"
    text = f"{context.title} ({box.id}) {how}"
    if box.offer.spot:
        text += f", and the job is not started again ({why})"
    if pull is not None:
        folder = checkpoints.pulls(context).folder(pull)
        where = formatting.path(str(folder.relative_to(context.root)))
        text += f"\n    {checkpoints.describe(pull)} are in {where}"
    next_ = _goes_on(context, run)
    stay = sorted(context.superseded)
    if now is not None and now.state in ("stopping", "stopped"):
        stay.append(box.id)
    if stay:
        text += f"\n    {formatting.some(stay)}: the disk is kept"
        next_ = f"inv fetch --rescue brings what its disk holds; {next_}"
    return Preempted(text, next=next_)


def superseded(context: BoxContext, box: Box) -> bool:
    """Tell whether what an earlier attempt has left there is of no use any more."""
    run = run_history.read(context)
    if run is None or not run.ended:
        return False
    # The last attempt's own box may hold the only copy of its outputs.
    boxes = [attempt.box for attempt in run.attempts]
    return box.id in boxes and box.id != boxes[-1]


def clear(context: BoxContext, run: Run) -> None:
    """Remove what earlier attempts have left here: the job has ended without it."""
    for attempt in run.attempts[:-1]:
        for name in ("outputs", "outputs-memory"):
            shutil.rmtree(salvage.kept(context, attempt.job) / name, ignore_errors=True)


def _leave(context: BoxContext, run: Run, box: Box) -> None:
    """Bring here what the box that was taken holds, if it can be had; then end it."""
    with context.timed("recover"), context.screen.stage("recover") as line:
        now = context.provider.get(box.id, box.place)
        here = False
        if now is not None and now.state == "running":
            here = salvage.bring_all(context, run, now, line)
            if not here:
                line.doing(f"waiting for {box.id} to be off")
        now = now if here else preemption.at_rest(context, box, "running", "stopping")
        if now is not None and not here and now.state == "running":
            raise OutputsHeld(
                f"{box.id} was to be taken back and still runs, and not all of its "
                "outputs are here; it is kept",
                next="inv fetch, then inv run",
            )
        if now is not None and now.state == "stopped" and now.offer.price == 0:
            here = _read_disk(context, run, now, line)
        if now is not None and not here:
            # It stays written down until there is another: should all this end
            # here, the next line takes it for what it is, and ends it.
            context.superseded.add(box.id)
            _look_anew(context)
            line.end("", f"{box.id} stays, for its disk, until the job has ended")
        else:
            line.doing(f"removing {box.id}")
            _remove(context, now or box)
            pull = checkpoints.pulls(context).latest(run.id)
            have = f"{checkpoints.describe(pull)}; " if pull else ""
            line.end("", f"{have}{box.id} is gone")


def _read_disk(context: BoxContext, run: Run, box: Box, line: StageLine) -> bool:
    """Start a box that costs nothing once more, for what its disk holds."""
    line.doing(f"starting {box.id} for what its disk holds")
    try:
        box = power.start(context, box)
    except (Lost, Preempted, BoxFailed, ProviderError):
        return False
    here = salvage.bring_all(context, run, box, line)
    now = context.provider.get(box.id, box.place)
    if not here and now is not None and now.state == "running":
        # Beside it there will be the next one.
        context.forget_connection()
        context.provider.stop(now)
    return here


def _remove(context: BoxContext, box: Box) -> None:
    lifecycle.remove(context, box)
    context.store.forget()
    _look_anew(context)


def _look_anew(context: BoxContext) -> None:
    """Have the next box be another one: asked for anew, and said anew."""
    context.forget_connection()
    context.forget_look()
    context.offers.clear()
    context.ended += 1


def _goes_on(context: BoxContext, run: Run) -> str:
    if checkpoints.pulls(context).latest(run.id) is None:
        return "inv run"
    return "inv run goes on from them (inv teardown before it: from the beginning)"
