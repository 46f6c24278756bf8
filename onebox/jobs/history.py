"""The history of a project: each job, what it ran on, how it ended, what it cost."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from onebox import formatting
from onebox.context import BoxContext
from onebox.errors import OneboxError, UsageError
from onebox.jobs import job_facts, receipt, run_record
from onebox.jobs.job_facts import JobFacts
from onebox.jobs.receipt import Receipt
from onebox.providers.costs import total
from onebox.store.box_store import BoxStore, box_folders
from onebox.store.paths import JOB
from onebox.store.record import Record


@dataclass(frozen=True)
class HistoryEntry:
    """
    One job of the project; None means unknown.

    Attributes:
        job: The id of the job.

        name: The name of its box.

        command: Its command.

        started: When the job started (epoch seconds).

        provider: Where its box was.

        size, type: The size that was asked for, and the machine type.

        seconds: How long the job ran.

        outcome: Whether it succeeded, failed or was cancelled, in a few words. A job
            is "running" until this machine learns of its end; the box is not asked.

        exit: The exit code.

        cost_usd: What the box cost for this job: the time of the box since its
            creation or since its previous job, and the egress of the outputs.

        cost_is_least: Whether the cost may be higher, because only the job's own time
            is known.

        log, receipt: The paths of the log and of the receipt (JSON) relative to the
            project, None if the file is not here.
    """

    job: str
    name: str | None
    command: str | None
    started: float | None
    provider: str | None
    size: str | None
    type: str | None
    seconds: float | None
    outcome: str
    exit: int | None
    cost_usd: float | None
    cost_is_least: bool
    log: str | None
    receipt: str | None


@dataclass(frozen=True)
class _Known:
    """
    What is known of a job that has no receipt.

    *outcome* is its outcome in a few words. The cost of its box is counted up to
    *until* (epoch seconds).
    """

    facts: JobFacts
    outcome: str
    until: float


@dataclass(frozen=True, repr=False)
class History:
    """
    The jobs of a project, newest first.

    Attributes:
        entries: The latest jobs, as many as were asked for.

        count: The number of all jobs.

        cost_usd: The sum of all known costs, also of jobs that are not in *entries*.

        cost_is_least: Whether the sum may be higher.
    """

    entries: tuple[HistoryEntry, ...]
    count: int
    cost_usd: float
    cost_is_least: bool

    def __repr__(self) -> str:
        least = "at least " * self.cost_is_least
        jobs = formatting.count(self.count, "job")
        return (
            f"<History of {jobs}, total cost {least}{formatting.money(self.cost_usd)}>"
        )


def read(
    context: BoxContext, limit: int | None, box_name: str | None = None
) -> History:
    """
    Return the latest jobs of this project.

    Only files on this machine are read. A damaged receipt counts as missing.

    Args:
        limit: The number of entries to return, None for all.

        box_name: Only the jobs of boxes of this name; None means all names.
    """
    folder = context.local_dir / "jobs"
    recorded = _recorded_jobs(context)
    jobs = {
        path.name
        for path in folder.glob("*")
        if JOB.fullmatch(path.name) and path.is_dir()
    } | recorded.keys()
    receipts = {
        job: found
        for job in jobs
        if (found := receipt.read(folder / job / receipt.FILE)) is not None
    }
    known = {
        job: one
        for job in jobs - receipts.keys()
        if (one := _what_is_known(context, job, recorded.get(job))) is not None
    }
    costs = _costs(receipts, known)
    entries = [
        _entry(
            context,
            job,
            receipts.get(job),
            known.get(job),
            costs,
            is_on_box=job in recorded and bool(recorded[job][1].box),
        )
        for job in sorted(jobs, reverse=True)
    ]
    if box_name is not None:
        entries = [entry for entry in entries if entry.name == box_name]
    sums = [entry.cost_usd for entry in entries if entry.cost_usd is not None]
    return History(
        entries=tuple(entries[:limit]),
        count=len(entries),
        cost_usd=sum(sums),
        cost_is_least=len(sums) < len(entries)
        or any(entry.cost_is_least for entry in entries),
    )


def find_id(context: BoxContext, part: str) -> str:
    """
    Return the id of the only job of this project whose id contains *part*.

    Raises:
        UsageError: No id contains it, or several do; the message lists them.
    """
    folder = context.local_dir / "jobs"
    ids = {path.name for path in folder.glob("*") if JOB.fullmatch(path.name)}
    ids |= _recorded_jobs(context).keys()
    found = sorted(job for job in ids if part in job)
    if len(found) == 1:
        return found[0]
    shown = formatting.path(part)
    raise UsageError(
        f"--job: {shown} is part of several ids: {formatting.first_names(found)}"
        if found
        else f"--job: {shown} is not the id of a job, nor a part of one",
        next="inv history lists the jobs",
    )


def _entry(
    context: BoxContext,
    job: str,
    of_job: Receipt | None,
    known: _Known | None,
    costs: dict[str, tuple[float | None, bool]],
    *,
    is_on_box: bool,
) -> HistoryEntry:
    folder = context.job_dir(job)
    log = _path_here(context, folder / "log")
    cost, is_least = costs.get(job, (None, False))
    if of_job is None:
        facts = JobFacts(job) if known is None else known.facts
        return HistoryEntry(
            job=job,
            name=facts.name or None,
            command=facts.command or None,
            started=facts.started or _moment(job),
            provider=facts.provider or None,
            size=facts.size or None,
            type=facts.type or None,
            seconds=facts.seconds,
            outcome="no information" if known is None else known.outcome,
            exit=facts.exit,
            cost_usd=cost,
            cost_is_least=is_least,
            log=log,
            receipt=None,
        )
    return HistoryEntry(
        job=job,
        name=of_job.box.name,
        command=of_job.command or None,
        started=of_job.started or _moment(job),
        provider=of_job.box.provider,
        size=of_job.box.size,
        type=of_job.box.type,
        seconds=of_job.seconds,
        outcome=_outcome(of_job)
        + ("" if is_on_box else _discarded(job_facts.read(context, job))),
        exit=of_job.exit,
        cost_usd=cost,
        cost_is_least=is_least,
        log=log,
        receipt=_path_here(context, folder / receipt.FILE),
    )


def _path_here(context: BoxContext, path: Path) -> str | None:
    """Return a path relative to the project, None if it is not a file."""
    if not path.is_file():
        return None
    return formatting.path(str(path.relative_to(context.root)))


def _running_for(context: BoxContext, name: str, record: Record) -> float | None:
    """
    Return for how many seconds a command of this machine has been running a job.

    The result is None if there is no such command: the box is not asked.
    """
    holder = BoxStore(context.store.directory.with_name(name)).holder()
    # A command that came later does something else, such as a fetch.
    if holder is None or not 0 < holder.since <= record.job_started:
        return None
    return max(time.time() - record.job_started, 0.0)


def _outcome(of_job: Receipt) -> str:
    """Return how a job ended in at most three words, so that it fits a column."""
    units = of_job.units
    if of_job.cause == "exit" and of_job.exit and units is not None and units.failed:
        return f"{units.failed:,} of {units.total:,} failed"
    return _ending(of_job.exit, of_job.cause, advice=of_job.advice)


def _ending(code: int, cause: str, *, advice: str | None = None) -> str:
    if cause == "cancel":
        return "cancelled"
    if cause == "oom" or advice:
        return "out of memory"
    words = {
        "preempted": "preempted",
        "deadline": "deadline",
        "poweroff": "powered off",
    }
    if cause in words:
        return words[cause]
    return f"exit {code}" if code else "succeeded"


def _recorded_jobs(context: BoxContext) -> dict[str, tuple[str, Record]]:
    """
    Return the name and the record of each box of the project, by its latest job.
    """
    found = {}
    for directory in box_folders(context.store.directory.parent):
        with suppress(OneboxError, OSError):
            record = BoxStore(directory).record
            if JOB.fullmatch(record.job):
                found[record.job] = directory.name, record
    return found


def _what_is_known(
    context: BoxContext, job: str, recorded: tuple[str, Record] | None
) -> _Known | None:
    """Return what is known of a job without a receipt, None if nothing is."""
    facts = job_facts.read(context, job)
    name, record = recorded or ("", Record())
    was_started = facts is not None
    if facts is None:
        if recorded is None:
            return None
        facts = job_facts.of_record(name, record)
    if not record.box or record.box != facts.box:
        return _of_gone_box(facts)
    now = time.time()
    off = facts.deadline if 0 < facts.deadline < now else 0.0
    until = off or now
    if facts.exit is not None:
        held = "" if record.fetched else ", not fetched"
        outcome = f"{_ending(facts.exit, facts.cause)}{held}"
        return _Known(facts, outcome, until)
    seconds = _running_for(context, name, record)
    if seconds is not None:
        return _Known(replace(facts, seconds=seconds), "running", until)
    # The box is not asked. It reports the end of a job to `inv status`, say.
    outcome = "running" if was_started and not off else "not known yet"
    return _Known(facts, outcome, until)


def _discarded(facts: JobFacts | None) -> str:
    return ", discarded" if facts is not None and facts.discarded else ""


def _of_gone_box(facts: JobFacts) -> _Known:
    outcome = "discarded" if facts.discarded else "no information"
    if facts.exit is not None:
        outcome = f"{_ending(facts.exit, facts.cause)}{_discarded(facts)}"
    return _Known(facts, outcome, facts.removed or facts.started)


def _costs(
    receipts: dict[str, Receipt], known: dict[str, _Known]
) -> dict[str, tuple[float | None, bool]]:
    """
    Return the cost of each job in USD, and whether it may be higher.

    A receipt has the cost of its box from the box's creation on, and of the run's
    earlier boxes. What an earlier receipt has counted is subtracted, so that the sum
    over all jobs counts each box once.

    Args:
        known: What is known of the jobs without a receipt.
    """
    costs: dict[str, tuple[float | None, bool]] = {}
    counted: dict[str, float] = {}
    for job in sorted(receipts.keys() | known.keys()):
        if job not in receipts:
            facts, until = known[job].facts, known[job].until
            seconds = until - (facts.created or facts.started or until)
            cost = run_record.cost(facts.hourly, max(seconds, 0.0))
            if cost is not None:
                before = counted.get(facts.box, 0.0)
                counted[facts.box] = max(cost, before)
                cost = max(cost - before, 0.0)
            costs[job] = cost, bool(facts.hourly)
            continue
        of_job = receipts[job]
        if not of_job.costs:
            # No client waited for this job, so the lifetime of its box is unknown.
            cost = of_job.own_cost
            counted[of_job.box.id] = counted.get(of_job.box.id, 0.0) + (cost or 0.0)
            costs[job] = cost, bool(cost)
            continue
        parts = dict(of_job.costs)
        outputs, earlier = parts.pop("outputs", 0.0), parts.pop(receipt.EARLIER, 0.0)
        box = total(parts.values())
        if box is None or earlier is None or outputs is None:
            costs[job] = None, False
            continue
        others = [] if of_job.attempts is None else of_job.attempts.jobs
        boxes = {receipts[each].box.id for each in others if each in receipts}
        boxes |= {known[each].facts.box for each in others if each in known}
        boxes.discard(of_job.box.id)
        earlier -= sum(counted.get(each, 0.0) for each in boxes)
        before = counted.get(of_job.box.id, 0.0)
        counted[of_job.box.id] = max(box, before)
        costs[job] = max(box - before, 0.0) + max(earlier, 0.0) + outputs, False
    return costs


def _moment(job: str) -> float | None:
    """Return the time (epoch seconds) that a job's id begins with."""
    with suppress(ValueError, OverflowError):
        return time.mktime(time.strptime(job[:15], "%Y%m%d-%H%M%S"))
    return None
