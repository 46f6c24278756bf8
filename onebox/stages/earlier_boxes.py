"""
Fetch what the boxes of an earlier `map` still have, before units run again.

The next `map` would otherwise run units that are done, or that run at this moment, a
second time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.agent.file_names import printable
from onebox.boxes import bring_up, replay_journal
from onebox.errors import Busy
from onebox.jobs import remote_job, run_record
from onebox.providers.costs import total
from onebox.stages import fetch, teardown
from onebox.units import job as unit_job

if TYPE_CHECKING:
    from onebox.context import BoxContext
    from onebox.providers.values import Box
    from onebox.store.box_store import BoxStore


@dataclass(frozen=True)
class _Earlier:
    """
    A box of an earlier call.

    *use* says what uses it: a command or a job; "" if nothing does. *box* is None if a
    command is about to create it.
    """

    context: BoxContext
    box: Box | None
    use: str

    @property
    def name(self) -> str:
        return self.context.settings.name

    @property
    def hourly(self) -> float | None:
        """Return what it costs an hour in USD, None if that is unknown."""
        return 0.0 if self.box is None else self.box.offer.hourly


def collect(context: BoxContext, *, own: bool) -> None:
    """
    Fetch the outputs of the boxes of the latest call of `map` whose jobs have ended.

    A box that was created for its job only is then removed.

    Args:
        own: Also do this with the box that has the name of *context*.

    Raises:
        Busy: A box still runs its units. What has ended is fetched.
    """
    names, job = _names(context, own=own)
    busy: list[_Earlier] = []
    for name in names:
        with context.screen.about(name):
            part = context.with_name(name)
            before = part.store.locked
            try:
                one = _locked(part)
                if one is not None and one.use:
                    busy.append(one)
                elif one is not None:
                    context.chain.fetched_earlier_job = job
                    _collect(one)
            finally:
                part.close()
                if not before:
                    part.store.unlock()
    if own:
        context.boxes.refresh()
    if busy:
        raise _error(context, busy)


def refusal(context: BoxContext, *, own: bool) -> Busy | None:
    """Return the error that `collect` would raise; nothing is changed."""
    busy: list[_Earlier] = []
    for name in _names(context, own=own)[0]:
        part = context.with_name(name)
        try:
            box = part.find_box()
            use = _holder(part) or ("" if box is None else _job(part, box))
            if use:
                busy.append(_Earlier(part, box, use))
        finally:
            part.close()
    return _error(context, busy) if busy else None


def unfetched(context: BoxContext) -> str:
    """
    Return the names of the boxes whose outputs are fetched before units are chosen.

    They may have done units that are not known here. Nothing is changed.
    """
    found = []
    for name in _names(context, own=True)[0]:
        part = context.with_name(name)
        try:
            if part.find_box() is not None and not part.store.record.fetched:
                found.append(name)
        finally:
            part.close()
    return formatting.first_names(found)


def _names(context: BoxContext, *, own: bool) -> tuple[list[str], str]:
    """Return the names of the boxes that may exist, and the id of their call."""
    found = unit_job.latest(context)
    if found is None:
        return [], ""
    job, units = found
    names = [name for name, _ in units.boxes]
    if own and not context.invocation.created_box:
        names.append(context.settings.name)
    stores = {name: context.with_name(name).store for name in names}
    # A box may have another job by now, which is no concern of the units.
    names = [name for name in names if _has_units(context, stores[name], name)]
    if not names:
        return [], job
    # A process that has inherited the lock may not have written its name yet.
    known = {
        name
        for name, store in stores.items()
        if store.record.box or store.open_intents() or not store.is_free()
    }
    if known != set(names):
        # The state of this machine may be lost; the tags of the boxes are not.
        known |= {
            box.tags.name
            for box in context.provider.find(context.owner)
            if box.tags.project == context.project and box.state != "gone"
        }
    return [name for name in names if name in known], job


def _has_units(context: BoxContext, store: BoxStore, name: str) -> bool:
    """Return whether the latest job of a box has units, or a part's box has no job."""
    job = store.record.job
    if job:
        return unit_job.load(context, job) is not None
    return name != context.settings.name


def _locked(part: BoxContext) -> _Earlier | None:
    """Lock a box and return it; None if there is none, and no command creates it."""
    try:
        part.lock()
    except Busy as error:
        return _Earlier(part, part.find_box(), error.message)
    replay_journal.replay(part)
    box = part.boxes.refresh()
    return None if box is None else _Earlier(part, box, _job(part, box))


def _holder(part: BoxContext) -> str:
    """Return which command uses a box, "" if none does."""
    holder = None if part.store.locked else part.store.holder()
    if holder is None:
        return "" if part.store.is_free() else "another onebox command uses it"
    return f'pid {holder.pid} "{printable(holder.command)}" uses it'


def _job(part: BoxContext, box: Box) -> str:
    """Return which job runs on a box, "" if none does."""
    if box.state != "running" or not bring_up.has_booted(part, box):
        return ""
    latest = remote_job.latest(part)
    return f"job {latest.job} still runs" if latest is not None and latest.runs else ""


def _collect(one: _Earlier) -> None:
    part, box = one.context, one.box
    if box is None:
        return
    record = part.store.record
    part.screen.note(f"box {one.name} is left of an earlier call of map")
    if box.state == "running" and bring_up.has_booted(part, box):
        fetch.fetch_previous(part, box)
    elif record.has_unfetched_job(box.id):
        with part.using_outputs_folder(part.job_outputs_folder):
            fetch.perform(part)
    if record.temporary:
        # Its units are dealt again, so its run is not resumed.
        run_record.forget(part)
        teardown.perform(part, end_run=False)


def _error(context: BoxContext, busy: Sequence[_Earlier]) -> Busy:
    lines = []
    for one in busy:
        box = "no box yet" if one.box is None else one.box.id
        lines.append(f"{one.name} ({box}, {_rate([one])}): {one.use}")
    first = busy[0].name
    names = formatting.first_names([one.name for one in busy], len(busy))
    hourly = total(one.hourly for one in busy)
    cost = "" if hourly == 0 else f", and cost {formatting.rate(hourly)}"
    still = "still has units" if len(busy) == 1 else "still have units"
    return Busy(
        f"{names} {still} of an earlier call of map{cost}",
        running="\n".join(lines),
        next=f"inv logs --name={first} waits for it, inv cancel --name={first} stops it"
        "\nthen inv map fetches its results and runs the other units",
    )


def _rate(busy: Sequence[_Earlier]) -> str:
    """Return what some boxes cost an hour."""
    return formatting.rate(total(one.hourly for one in busy))
