"""
What is remembered of one run of a job over all of its attempts.

It lies in a file of its own beside the record of the box: the record goes with
its box, and this is what is left when the cloud has taken that.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onebox.providers.base import Box
from onebox.remote.answers import ExitRecord
from onebox.store.atomic_files import private_dir, write_atomically

if TYPE_CHECKING:
    from onebox.context import BoxContext

NAME = "attempts.json"
# Causes of a job's end that are not the job's own, nor its user's.
TAKEN = ("preempted", "poweroff")


@dataclass(frozen=True)
class Attempt:
    """One job of the run, and what its box cost until *until* (epoch seconds)."""

    job: str
    box: str
    spot: bool
    price: float | None
    on_demand: float | None
    created: float
    until: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True)
class Run:
    """
    A command, and every attempt at it so far.

    *ended* says that the job has ended by itself, well or not, or that the user
    has ended it: then nothing is left to go on with.
    """

    command: str
    attempts: tuple[Attempt, ...] = field(default=())
    ended: bool = False

    @property
    def id(self) -> str:
        """Return the run's name: its first job's."""
        return self.attempts[0].job if self.attempts else ""

    @property
    def job(self) -> str:
        """Return the job of the last attempt."""
        return self.attempts[-1].job

    def has(self, job: str) -> bool:
        """Tell whether a job is an attempt of this run."""
        return any(attempt.job == job for attempt in self.attempts)

    def begun(self, job: str, box: Box) -> Run:
        """Return it with another attempt, which begins now."""
        size = box.offer
        attempt = Attempt(
            job, box.id, size.spot, size.hourly, size.hourly_on_demand, box.created
        )
        return replace(self, attempts=(*self.attempts, attempt), ended=False)

    def over(self, seconds: float, *, ended: bool) -> Run:
        """Return it with its last attempt over, after so many seconds of the job."""
        last = replace(self.attempts[-1], until=time.time(), seconds=seconds)
        return replace(self, attempts=(*self.attempts[:-1], last), ended=ended)

    def earlier(self, box: str) -> list[tuple[float | None, float | None, float]]:
        """Return price, on-demand price and seconds of each box before this one."""
        lives: dict[str, tuple[float | None, float | None, float]] = {}
        for one in self.attempts:
            until = max(one.until, one.created)
            if one.box != box:
                lives[one.box] = (one.price, one.on_demand, until - one.created)
        return list(lives.values())


def read(context: BoxContext) -> Run | None:
    """Return what is remembered, None if that is nothing."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        told = json.loads(_path(context).read_bytes())
        tried = tuple(Attempt(**one) for one in told["attempts"])
        return Run(str(told["command"]), tried, bool(told["ended"]))
    return None


def write(context: BoxContext, run: Run) -> Run:
    """Remember a run; it is on the disk when this returns."""
    path = _path(context)
    private_dir(path.parent)
    write_atomically(path, json.dumps(asdict(run), indent=1).encode())
    return run


def seen(context: BoxContext, job: str, record: ExitRecord | None) -> None:
    """Take note of a job that has ended while nobody was attached."""
    run = read(context)
    if run is None or run.ended or record is None:
        return
    if run.has(job) and record.cause not in TAKEN:
        write(context, run.over(record.seconds, ended=True))


def forget(context: BoxContext) -> None:
    """Have the next run be one of its own."""
    _path(context).unlink(missing_ok=True)


def withdraw(context: BoxContext, run: Run) -> None:
    """Take back the last attempt: its job was refused and has never begun."""
    if run.attempts[1:]:
        write(context, replace(run, attempts=run.attempts[:-1]))
    else:
        forget(context)


def account(run: Run, box: Box) -> Mapping[str, Any]:
    """Return what a receipt says of all attempts together, up to now."""
    lives = [*run.earlier(box.id), (box.offer.hourly, None, time.time() - box.created)]
    costs = [cost(price, seconds) for price, _, seconds in lives]
    known = [one for one in costs if one is not None]
    return {
        "jobs": [attempt.job for attempt in run.attempts],
        "boxes": len(lives),
        "seconds": round(sum(attempt.seconds for attempt in run.attempts), 3),
        "cost": round(sum(known), 6) if len(known) == len(costs) else None,
        "earlier": run.earlier(box.id),
    }


def cost(price: float | None, seconds: float) -> float | None:
    """Return what so much time costs: clouds bill a minute at least."""
    return None if price is None else price * max(seconds, 60.0) / 3600


def _path(context: BoxContext) -> Path:
    return context.store.directory / NAME
