"""
The record of one run: its command, and every job that was started for it.

It is stored beside the box's record and not in it. The box's record is emptied when
the box is removed, but the record of the run is still needed after a preemption.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from onebox.context import BoxContext
from onebox.providers.values import Box
from onebox.remote.job_answers import ExitRecord
from onebox.store.atomic_files import disk_errors, private_dir, write_atomically

NAME = "attempts.json"
# A job with one of these causes did not end by itself, and its user did not end it.
NOT_BY_ITSELF = ("preempted", "poweroff")
# Clouds bill a box for at least this time.
LEAST_SECONDS = 60.0


@dataclass(frozen=True)
class Attempt:
    """
    One job of a run and the box that it ran on.

    Attributes:
        hourly: The hourly cost of the box in USD, None if it is unknown.

        hourly_on_demand: The hourly cost of the same box on demand.

        created: When the box was created (epoch seconds).

        until: When the attempt ended (epoch seconds), 0 while it runs.

        seconds: How long the job ran.
    """

    job: str
    box: str
    spot: bool
    hourly: float | None
    hourly_on_demand: float | None
    created: float
    until: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True)
class EarlierBox:
    """
    A box of a run that is not its present box.

    *hourly* and *hourly_on_demand* are in USD; *seconds* is the box's lifetime.
    """

    hourly: float | None
    hourly_on_demand: float | None
    seconds: float


@dataclass(frozen=True)
class RunTotals:
    """
    The sum over all attempts of a run, up to now.

    Attributes:
        boxes: The number of boxes.

        seconds: How long the jobs ran in total.

        cost: The cost of all boxes in USD, None if a price is unknown.
    """

    jobs: tuple[str, ...]
    boxes: int
    seconds: float
    cost: float | None
    earlier: tuple[EarlierBox, ...] = ()


@dataclass(frozen=True)
class Run:
    """
    A command and its attempts, oldest first.

    *ended* means that there is nothing to resume: the job has exited, with any code,
    or the user has ended it.
    """

    command: str
    attempts: tuple[Attempt, ...] = ()
    ended: bool = False

    @property
    def id(self) -> str:
        """
        Return the id of the run, which is the id of its first job.

        Return "" if the run has no attempt.
        """
        return self.attempts[0].job if self.attempts else ""

    @property
    def job(self) -> str:
        """Return the id of the last attempt's job."""
        return self.attempts[-1].job

    def has(self, job: str) -> bool:
        """Return whether a job is an attempt of this run."""
        return any(attempt.job == job for attempt in self.attempts)

    def with_attempt(self, job: str, box: Box) -> Run:
        """Return a copy of the run with one more attempt: the job *job* on *box*."""
        offer = box.offer
        attempt = Attempt(
            job, box.id, offer.spot, offer.hourly, offer.hourly_on_demand, box.created
        )
        return replace(self, attempts=(*self.attempts, attempt), ended=False)

    def with_end(self, seconds: float, *, ended: bool) -> Run:
        """
        Return a copy of the run whose last attempt ends now.

        *seconds* is how long the attempt's job ran. *ended* is the new value of
        `Run.ended`.
        """
        last = replace(self.attempts[-1], until=time.time(), seconds=seconds)
        return replace(self, attempts=(*self.attempts[:-1], last), ended=ended)

    def earlier(self, box_id: str) -> tuple[EarlierBox, ...]:
        """Return the boxes of this run other than the box *box_id*."""
        boxes = {}
        for attempt in self.attempts:
            if attempt.box != box_id:
                seconds = max(attempt.until, attempt.created) - attempt.created
                boxes[attempt.box] = EarlierBox(
                    attempt.hourly, attempt.hourly_on_demand, seconds
                )
        return tuple(boxes.values())


def read(context: BoxContext) -> Run | None:
    """Return the latest run of this box name, None if there is none."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        document = json.loads(_path(context).read_bytes())
        attempts = tuple(Attempt(**values) for values in document["attempts"])
        return Run(str(document["command"]), attempts, bool(document["ended"]))
    return None


def write(context: BoxContext, run: Run) -> Run:
    """Store a run durably, and return it."""
    path = _path(context)
    with disk_errors(path):
        private_dir(path.parent)
        write_atomically(path, json.dumps(asdict(run), indent=1).encode())
    return run


def record_end(context: BoxContext, job: str, record: ExitRecord | None) -> None:
    """Store the end of a run whose job ended while no client was connected."""
    run = read(context)
    if run is None or run.ended or record is None:
        return
    if run.has(job) and record.cause not in NOT_BY_ITSELF:
        write(context, run.with_end(record.seconds, ended=True))


def forget(context: BoxContext) -> None:
    """Remove the stored run, so that the next job begins a new run."""
    _path(context).unlink(missing_ok=True)


def withdraw(context: BoxContext, run: Run) -> None:
    """
    Remove the last attempt of *run*, because the box has refused to start its job.
    """
    if run.attempts[1:]:
        write(context, replace(run, attempts=run.attempts[:-1]))
    else:
        forget(context)


def account(run: Run, box: Box) -> RunTotals:
    """Return the totals of all attempts of *run*; *box* is the run's present box."""
    earlier = run.earlier(box.id)
    current = EarlierBox(box.offer.hourly, None, time.time() - box.created)
    costs = [cost(each.hourly, each.seconds) for each in (*earlier, current)]
    known = [each for each in costs if each is not None]
    return RunTotals(
        jobs=tuple(attempt.job for attempt in run.attempts),
        boxes=len(costs),
        seconds=round(sum(attempt.seconds for attempt in run.attempts), 3),
        cost=round(sum(known), 6) if len(known) == len(costs) else None,
        earlier=earlier,
    )


def cost(hourly: float | None, seconds: float) -> float | None:
    """
    Return the cost of a box for *seconds* in USD, None if *hourly* is None.

    At least `LEAST_SECONDS` are billed.
    """
    return None if hourly is None else hourly * max(seconds, LEAST_SECONDS) / 3600


def _path(context: BoxContext) -> Path:
    return context.store.directory / NAME
