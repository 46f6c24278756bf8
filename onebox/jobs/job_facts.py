"""
What is known of a job without its receipt, as a value and as a file.

The file is written when the job starts, so that the job stays in the history if its box
is removed before a receipt is written.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from onebox.context import BoxContext
from onebox.errors import StateError
from onebox.jobs.stored_values import check_types, cleaned
from onebox.providers.values import Box
from onebox.remote.job_answers import ExitRecord
from onebox.remote.json_fields import LATEST
from onebox.store.atomic_files import open_folder, read_regular, write_in
from onebox.store.record import Record

FILE = "job.json"


@dataclass(frozen=True)
class JobFacts:
    """
    What this machine knows of a job; times in epoch seconds, 0 means unknown.

    Attributes:
        name, provider, size, type: The `--name` of its box, where the box was, the size
            that was asked for, and the machine type.

        box: The id of its box.

        hourly: The hourly cost of the box in USD, None if it is unknown.

        created, deadline: When the box was created, and when it powers itself off.

        started: When the job was started.

        exit, cause, seconds: How the job ended and how long it ran, as far as the box
            has reported it; *exit* is None while that is unknown.

        removed: When the box was removed.

        discarded: Whether the outputs were given up when the box was removed.
    """

    job: str
    command: str = ""
    name: str = ""
    provider: str = ""
    size: str = ""
    type: str = ""
    box: str = ""
    hourly: float | None = None
    created: float = 0.0
    deadline: float = 0.0
    started: float = 0.0
    exit: int | None = None
    cause: str = ""
    seconds: float | None = None
    removed: float = 0.0
    discarded: bool = False


def of_record(name: str, record: Record) -> JobFacts:
    """Return what the record of the box *name* knows of its latest job."""
    return JobFacts(
        job=record.job,
        command=record.job_command,
        name=name,
        provider=record.provider,
        size=record.size,
        box=record.box,
        hourly=record.hourly,
        created=record.created,
        deadline=record.deadline,
        started=record.job_started,
    )


def read(context: BoxContext, job: str) -> JobFacts | None:
    """Return the facts of a job, None if their file is missing or damaged."""
    return read_file(context.job_dir(job) / FILE)


def read_file(path: Path) -> JobFacts | None:
    """Return the facts in a file, None if the file is missing or damaged."""
    # A project that was cloned may bring any file.
    with suppress(OSError, ValueError, TypeError, AttributeError, RecursionError):
        document = cleaned(json.loads(read_regular(path)))
        names = {field.name for field in fields(JobFacts)}
        facts = JobFacts(**{k: v for k, v in document.items() if k in names})
        check_types(facts)
        _check_ranges(facts)
        return facts if facts.job == path.parent.name else None
    return None


def _check_ranges(facts: JobFacts) -> None:
    """Raise ValueError for a number that no job can have."""
    times = (facts.created, facts.deadline, facts.started, facts.removed)
    numbers = [(number, LATEST) for number in (*times, facts.seconds or 0)]
    numbers += [(facts.hourly or 0, 1e6), (facts.exit or 0, 255)]
    if not all(0 <= number <= most for number, most in numbers):
        raise ValueError("a number is out of range")


def note_start(context: BoxContext, box: Box) -> None:
    """Store the facts of the job that the box has started just now."""
    facts = of_record(context.settings.name, context.store.record)
    _write(context, replace(facts, type=box.offer.type))


def note_end(context: BoxContext, job: str, record: ExitRecord | None) -> None:
    """Store how a job ended, if *record* tells it and the job is recorded here."""
    facts = _latest(context)
    if record is None or facts is None or facts.job != job or facts.exit is not None:
        return
    _write(
        context,
        replace(facts, exit=record.code, cause=record.cause, seconds=record.seconds),
    )


def note_removal(context: BoxContext, *, discard: bool) -> None:
    """
    Store, before the recorded box is removed, whether its outputs are given up.

    As long as the box is recorded, the history ignores this.

    Args:
        discard: Whether outputs that are not here are given up.
    """
    facts, lost = _latest(context), discard and not context.store.record.fetched
    if facts is not None and (discard or facts.discarded):
        _write(context, replace(facts, removed=time.time(), discarded=lost))


def _latest(context: BoxContext) -> JobFacts | None:
    record = context.store.record
    if not record.job:
        return None
    with suppress(StateError):
        facts = read(context, record.job)
        return facts or of_record(context.settings.name, record)
    return None


def _write(context: BoxContext, facts: JobFacts) -> None:
    # The project folder may be read-only, or bring links if it was cloned.
    with (
        suppress(OSError, StateError),
        open_folder(context.job_dir(facts.job)) as opened,
    ):
        write_in(opened, FILE, json.dumps(asdict(facts), indent=1).encode())
