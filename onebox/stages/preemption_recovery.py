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
import time
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
from onebox.providers.base import Box, BoxState
from onebox.remote.answers import ExitRecord, JobStatus
from onebox.stages import provision, push, salvage

if TYPE_CHECKING:
    from onebox.context import Session
    from onebox.ui.progress import StageLine


def begin(session: Session, command: str, before: JobStatus | None) -> tuple[Run, bool]:
    """
    Return the run that a job belongs to, and whether it starts on an empty box.

    It is that of an earlier line if the cloud has taken the box of the same
    command, and nothing has ended that since.

    Args:
        before: The status of the latest job on this box, if there was one.
    """
    told = run_history.read(session)
    if told is None or told.ended or told.command != command or not told.attempts:
        return Run(command), False
    if before is None:
        return told, True
    unended = before.state == "lost" or before.cause in run_history.TAKEN
    if told.has(before.job) and unended:
        return told, False
    return Run(command), False


def resumes(session: Session, command: str) -> str:
    """Say from where a job would go on if it ran now, "" if from its beginning."""
    box, before = session.box, None
    if box is not None and box.state == "running":
        before = client.latest(session)
    run, anew = begin(session, command, before)
    if not run.attempts:
        return ""
    if not anew or (box is not None and box.state != "running" and not box.disk_only):
        return f"goes on with the run of job {run.id}, from what is on its box"
    pull = checkpoints.pulls(session).latest(run.id)
    if pull is None:
        return f"starts again: no checkpoints of job {run.id} have come here"
    return f"goes on with the run of job {run.id}, from {checkpoints.describe(pull)}"


def refusal(session: Session, run: Run, box: Box, tries: int) -> str:
    """Say why a job is not started again, "" if it is."""
    limits = session.settings.limits
    if not box.size.spot:
        return "only jobs on spot capacity are started again"
    if session.line.only:
        return "--only starts nothing again"
    if tries > limits.retries:
        return f"[limits] retries = {limits.retries}"
    spent = run_history.account(run, box)["cost"]
    if limits.max_cost is None:
        return ""
    hourly = box.size.hourly
    worst = None if hourly is None else hourly * limits.max_hours
    if spent is None or worst is None or spent + worst > limits.max_cost:
        return (
            f"{formatting.money(spent)} is spent, and another attempt could cost "
            f"{formatting.money(worst)} more: [limits] max_cost = "
            f"{formatting.money(limits.max_cost)}"
        )
    return ""


def next_box(session: Session, run: Run, box: Box, tries: int) -> tuple[Box, int]:
    """
    See to the box that was taken, and have another one ready for the job.

    Returns the box, and which attempt it is for: a box can be taken before its
    job has begun.

    Raises:
        Preempted: There have been as many attempts as there may be.

        NoCapacity: There is no room for the next one now.
    """
    if not session.line.owes_teardown(session.notebook.record.ours_to_end):
        # It was not the chain's to end; nor is the one in its place.
        session.line.box_wanted = True
    _leave(session, run, box)
    while True:
        tries += 1
        # The next box may be of another type, and dearer: all together count.
        session.spent_before = run_history.account(run, box)["cost"]
        try:
            provision.perform(session)
            push.perform(session)
            fresh = session.running_box()
            restore(session, run, fresh)
            return fresh, tries
        except NoCapacity as error:
            error.next = f"{_goes_on(session, run)}, once there is room; {error.next}"
            raise
        except (Lost, Preempted):
            fresh_one = session.look_again()
            if fresh_one is not None:
                if not preemption.taken(session, fresh_one):
                    raise
                box = fresh_one
                # No job has begun on it.
                _remove(session, box)
            why = refusal(session, run, box, tries)
            if why:
                raise given_up(session, run, box, why) from None
            session.screen.note("taken back before the job had begun; once more")


def restore(session: Session, run: Run, box: Box) -> None:
    """Put the run's newest checkpoints on an empty box, or say that there are none."""
    with session.timed("restore"):
        pull = checkpoints.put_back(session, box, run.id)
    if pull is None:
        why = "no checkpoints have come here"
        if not session.settings.fetch.checkpoints:
            why = "[fetch] checkpoints names none"
        session.screen.note(f"{why}: the job starts from its beginning")


def given_up(session: Session, run: Run, box: Box, why: str) -> Preempted:
    """Return the error that ends a run whose box was taken, and what is to do now."""
    try:
        now = session.provider.get(box.id, box.place)
    except ProviderError:
        now = box
    pull = checkpoints.pulls(session).latest(run.id)
    crashed = now is not None and now.why == "poweroff"
    how = "crashed" if crashed else "was taken back by the provider"
    text = f"{session.title} ({box.id}) {how}"
    if box.size.spot:
        text += f", and the job is not started again ({why})"
    if pull is not None:
        folder = checkpoints.pulls(session).folder(pull)
        where = formatting.path(str(folder.relative_to(session.root)))
        text += f"\n    {checkpoints.describe(pull)} are in {where}"
    next_ = _goes_on(session, run)
    stay = sorted(session.aside)
    if now is not None and now.state in ("stopping", "stopped"):
        stay.append(box.id)
    if stay:
        text += f"\n    {formatting.some(stay)}: the disk is kept"
        next_ = f"inv fetch --rescue brings what its disk holds; {next_}"
    return Preempted(text, next=next_)


def superseded(session: Session, box: Box) -> bool:
    """Tell whether what an earlier attempt has left there is of no use any more."""
    run = run_history.read(session)
    if run is None or not run.ended:
        return False
    # The last attempt's own box may hold the only copy of its outputs.
    boxes = [attempt.box for attempt in run.attempts]
    return box.id in boxes and box.id != boxes[-1]


def clear(session: Session, run: Run) -> None:
    """Remove what earlier attempts have left here: the job has ended without it."""
    for attempt in run.attempts[:-1]:
        for name in ("outputs", "outputs-memory"):
            shutil.rmtree(salvage.kept(session, attempt.job) / name, ignore_errors=True)


def _leave(session: Session, run: Run, box: Box) -> None:
    """Bring here what the box that was taken holds, if it can be had; then end it."""
    with session.timed("recover"), session.screen.stage("recover") as line:
        now = session.provider.get(box.id, box.place)
        here = False
        if now is not None and now.state == "running":
            here = salvage.bring_all(session, run, now, line)
            if not here:
                line.doing(f"waiting for {box.id} to be off")
        now = now if here else preemption.at_rest(session, box, "running", "stopping")
        if now is not None and not here and now.state == "running":
            raise OutputsHeld(
                f"{box.id} was to be taken back and still runs, and not all of its "
                "outputs are here; it is kept",
                next="inv fetch, then inv run",
            )
        if now is not None and now.state == "stopped" and now.size.price == 0:
            here = _read_disk(session, run, now, line)
        if now is not None and not here:
            # It stays written down until there is another: should all this end
            # here, the next line takes it for what it is, and ends it.
            session.aside.add(box.id)
            _look_anew(session)
            line.end("", f"{box.id} stays, for its disk, until the job has ended")
        else:
            line.doing(f"removing {box.id}")
            _remove(session, now or box)
            pull = checkpoints.pulls(session).latest(run.id)
            have = f"{checkpoints.describe(pull)}; " if pull else ""
            line.end("", f"{have}{box.id} is gone")


def _read_disk(session: Session, run: Run, box: Box, line: StageLine) -> bool:
    """Start a box that costs nothing once more, for what its disk holds."""
    line.doing(f"starting {box.id} for what its disk holds")
    try:
        box = power.start(session, box)
    except (Lost, Preempted, BoxFailed, ProviderError):
        return False
    here = salvage.bring_all(session, run, box, line)
    now = session.provider.get(box.id, box.place)
    if not here and now is not None and now.state == "running":
        # Beside it there will be the next one.
        session.forget_door()
        session.provider.stop(now)
    return here


def _remove(session: Session, box: Box) -> None:
    lifecycle.remove(session, box)
    session.notebook.forget()
    _look_anew(session)


def _look_anew(session: Session) -> None:
    """Have the next box be another one: asked for anew, and said anew."""
    session.forget_door()
    session.forget_look()
    session.sizes.clear()
    session.ended += 1


def _goes_on(session: Session, run: Run) -> str:
    if checkpoints.pulls(session).latest(run.id) is None:
        return "inv run"
    return "inv run goes on from them (inv teardown before it: from the beginning)"
