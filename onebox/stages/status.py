"""Print the boxes and jobs of this project."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.agent.file_names import printable
from onebox.boxes import other_providers, under_way
from onebox.errors import OneboxError
from onebox.jobs import finished_jobs, follow, notify, remote_job
from onebox.jobs.memory_advice import memory_advice
from onebox.providers.values import Box
from onebox.stages import queue
from onebox.store.record import Record
from onebox.ui.table import Cell

if TYPE_CHECKING:
    from onebox.context import BoxContext

HEAD = ("name", "state", "type", "price", "job", "powers off", "outputs", "command")
# The columns that a narrow terminal lacks, the first one first, so that this many
# characters of the command fit. `inv status --name=…` prints all.
LEFT_OUT = ("type", "state")
COMMAND_WIDTH = 20
PIPE_HEAD = (
    "name",
    "box",
    "state",
    "size",
    "type",
    "price an hour",
    "job",
    "job state",
    "job seconds",
    "deadline",
    "outputs",
    "command",
)


@dataclass(frozen=True)
class BoxJob:
    """
    The latest job of a box; None means unknown, or that no job has run.

    Attributes:
        id: Its id.

        state: "none", "running", "succeeded", "failed", "cancelled", "ended" (with
            code 0, but not by itself), or "unknown".

        text: The state in words, with the reason.

        command: Its command, None if another machine or user has started it.

        started: When it started (epoch seconds).

        seconds: How long it has run.

        exit: Its exit code, None while it runs.

        advice: What to change if it had too little memory, else "".
    """

    id: str | None
    state: str
    text: str
    command: str | None = None
    started: float | None = None
    seconds: float | None = None
    exit: int | None = None
    advice: str = ""


@dataclass(frozen=True, repr=False)
class BoxStatus:
    """
    A box of this project with its cost, deadline and job; None means unknown.

    Attributes:
        name: The name of the box: that of `--name`, or "main".

        id: Its id.

        provider: Where it is.

        is_builder: Whether the box only builds an image.

        state: "starting", "running", "stopping", "stopped", or "unknown" if the
            provider does not answer.

        size, type: The size that was asked for, and the machine type.

        hourly_usd: The price of all parts in USD an hour.

        created: When it was created (epoch seconds).

        deadline: When it powers itself off (epoch seconds), None if it is off.

        job: Its latest job.

        outputs: "fetched" or "not fetched" for those of the latest job, None if there
            are none yet, or if nothing is recorded.

        error: Why the provider does not answer, else "".
    """

    name: str
    id: str
    provider: str
    is_builder: bool
    state: str
    size: str | None
    type: str | None
    hourly_usd: float | None
    created: float | None
    deadline: float | None
    job: BoxJob
    outputs: str | None
    error: str = ""

    def __repr__(self) -> str:
        what = f"{self.state}, {self.size} on {self.provider}"
        job = " ".join(filter(None, [self.job.id, self.job.text]))
        return f"<BoxStatus {self.name}: {what}, job {job}>"


def perform(context: BoxContext) -> tuple[BoxStatus, ...]:
    """
    Print each box of this project with its cost, deadline and job.

    All boxes are returned, those at other providers too. If Python code has called
    onebox, they are not printed.

    Several boxes are printed as a table. A box at another provider is printed with the
    command that removes it. If there is no box, the outcome of the last job is printed.
    """
    one_name = is_for_one_name(context)
    found = boxes(context)
    elsewhere = [
        box
        for box in other_providers.find(context)
        if not one_name or box.name == context.settings.name
    ]
    all_boxes = (*found, *(_of_other(other) for other in elsewhere))
    if context.invocation.from_python:
        return all_boxes
    others = [
        one
        for one in under_way.of_project(context, [box.name for box in all_boxes])
        if not one_name or one.name == context.settings.name
    ]
    if context.screen.json:
        fields = {
            "project": context.settings.project,
            "provider": context.provider.name,
            "boxes": all_boxes,
            "under_way": others,
            "waiting": queue.of_project(context),
        }
        context.screen.print_json("status", fields)
        return all_boxes
    if not found and not elsewhere and not others:
        _print_last_job(context, one_name=one_name)
    elif len(found) == 1:
        _print_details(context, found[0])
    elif found:
        _print_table(context, found)
    for other in elsewhere:
        other_providers.print_box(context, other, context.screen.print)
    for one in others:
        context.screen.print(one.describe(context.title_of(one.name)))
    queue.print_waiting(context, one_name=one_name)
    return all_boxes


def is_for_one_name(context: BoxContext) -> bool:
    """Return whether `--name` asks for the box of one name only."""
    return context.settings.source("name") == "--name"


def boxes(context: BoxContext) -> list[BoxStatus]:
    """
    Return the status of each box of this project at its provider, by name.

    With `--name`, only the box of that name is returned.
    """
    found = [
        box
        for box in context.provider.find(context.owner)
        if box.tags.project == context.project
        and (not is_for_one_name(context) or box.tags.name == context.settings.name)
    ]
    return [read(context, box) for box in sorted(found, key=lambda b: b.tags.name)]


def read(context: BoxContext, box: Box) -> BoxStatus:
    """Return the status of a box; its job is asked for over ssh."""
    name, is_builder = box.tags.name, box.tags.kind != "box"
    if name != context.settings.name and not is_builder:
        context = context.with_name(name)
    job = _read_job(context, box)
    return BoxStatus(
        name=name,
        id=box.id,
        provider=context.provider.name,
        is_builder=is_builder,
        state=box.state,
        size=box.offer.name,
        type=box.offer.type,
        hourly_usd=box.offer.hourly,
        created=box.created,
        deadline=box.deadline if box.state == "running" else None,
        job=job,
        outputs=None if is_builder else _outputs(context, box, job),
    )


def _of_other(other: other_providers.BoxAtOtherProvider) -> BoxStatus:
    """Return the status of a box at another provider; its job is not asked for."""
    record, box = other.record, other.box
    unknown = "no information (the box is at another provider)"
    job = BoxJob(record.job or None, "unknown", unknown, record.job_command or None)
    return BoxStatus(
        name=other.name,
        id=record.box,
        provider=record.provider,
        is_builder=False,
        state="unknown" if box is None else box.state,
        size=record.size or None,
        type=None if box is None else box.offer.type,
        hourly_usd=record.hourly if box is None else box.offer.hourly,
        created=record.created or None,
        deadline=box.deadline if box is not None and box.state == "running" else None,
        job=job,
        outputs=None,
        error=other.error,
    )


def _read_job(context: BoxContext, box: Box) -> BoxJob:
    """Return the state of a box's latest job."""
    if box.tags.kind != "box":
        return BoxJob(None, "none", "-")
    record = context.store.record
    if box.state != "running":
        job = record.job if record.box == box.id and record.job else None
        return BoxJob(
            job, "unknown", "no information (box is off)", _command(record, job)
        )
    try:
        status = remote_job.status(context.ssh(box).channel())
    except OneboxError as error:
        reason = f"no information (the box does not answer: {error.message})"
        return BoxJob(None, "unknown", reason)
    finally:
        context.close()
    if status.state == "none":
        return BoxJob(None, "none", "none yet")
    command = _command(record, status.job)
    if status.record is not None:
        notify.learned(context, box, status.job, status.record)
        words = follow.outcome(status.record)
        return BoxJob(
            status.job,
            words.split(",")[0].split(";")[0],
            words,
            command,
            status.record.started,
            status.record.seconds,
            status.record.code,
            context.screen.hints.spell(memory_advice(context, box, status.record)),
        )
    if status.state == "lost":
        text = f"no information ({status.why})"
        return BoxJob(status.job, "unknown", text, command, status.started)
    seconds = None
    text = "running"
    if status.started:
        now = time.time() + context.ssh(box).clock_ahead
        seconds = max(now - status.started, 0)
        text += f" {formatting.seconds(seconds)}"
    return BoxJob(status.job, "running", text, command, status.started, seconds)


def _command(record: Record, job: str | None) -> str | None:
    """Return the command of a job that is recorded here, None if it is unknown."""
    return (record.job_command or None) if job and record.job == job else None


def _outputs(context: BoxContext, box: Box, job: BoxJob) -> str | None:
    """Return whether the outputs of the latest job were fetched, None if unknown."""
    record = context.store.record
    if job.state == "running" or record.box != box.id or not record.job:
        return None
    if job.id not in (None, record.job):
        return None
    return "fetched" if record.fetched else "not fetched"


def _print_last_job(context: BoxContext, *, one_name: bool) -> None:
    title = context.title if one_name else context.settings.project
    context.screen.print(f"{title}: no box is up")
    finished = finished_jobs.latest(context, whatever_name=not one_name)
    if finished is not None:
        context.screen.print(f"    last job {finished.job}: {finished.ending}")
        if finished.receipt is not None and finished.receipt.advice:
            context.screen.print(f"    {finished.receipt.advice}")


def _print_table(context: BoxContext, found: list[BoxStatus]) -> None:
    now = time.time()
    if not context.screen.on_terminal:
        context.screen.table(PIPE_HEAD, [_pipe_row(status) for status in found])
        return
    rows: list[list[str | Cell]] = [
        [
            _name(status),
            Cell(status.state, "done" if status.deadline else "kept"),
            status.type or "",
            formatting.rate(status.hourly_usd),
            Cell(status.job.text, _mark(status.job)),
            _deadline(status, now),
            _outputs_cell(status),
            printable(status.job.command or ""),
        ]
        for status in found
    ]
    kept = _columns(rows, context.screen.columns)
    context.screen.table(
        [HEAD[n] for n in kept],
        [[row[n] for n in kept] for row in rows],
        shorten="command",
    )


def _columns(rows: Sequence[Sequence[str | Cell]], width: int) -> list[int]:
    """Return the indices of the columns for a terminal of this width."""
    kept = list(range(len(HEAD)))
    texts = [
        list(HEAD),
        *([c.text if isinstance(c, Cell) else c for c in row] for row in rows),
    ]
    widths = [max(len(row[n]) + 2 for row in texts) for n in kept]
    command = min(widths.pop(), COMMAND_WIDTH)
    for title in LEFT_OUT:
        if sum(widths[n] for n in kept[:-1]) + command > width:
            kept.remove(HEAD.index(title))
    return kept


def _pipe_row(status: BoxStatus) -> list[str]:
    job, deadline = status.job, ""
    if status.deadline is not None:
        deadline = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(status.deadline))
    return [
        _name(status),
        status.id,
        status.state,
        status.size or "",
        status.type or "",
        "" if status.hourly_usd is None else f"{status.hourly_usd:.4f}",
        job.id or "",
        job.text,
        "" if job.seconds is None else f"{job.seconds:.1f}",
        deadline,
        "running" if job.state == "running" else status.outputs or "",
        printable(job.command or ""),
    ]


def _name(status: BoxStatus) -> str:
    return f"{status.name} (builder)" if status.is_builder else status.name


def _mark(job: BoxJob) -> str:
    return {"succeeded": "done", "failed": "failed"}.get(job.state, "kept")


def _outputs_cell(status: BoxStatus) -> Cell:
    text = status.outputs or "-"
    return Cell(text, {"fetched": "done", "not fetched": "warn"}.get(text, ""))


def _deadline(status: BoxStatus, now: float) -> str:
    if status.deadline is None:
        return "is off"
    return formatting.when(status.deadline, now)


def _print_details(context: BoxContext, status: BoxStatus) -> None:
    now, screen = time.time(), context.screen
    age = formatting.seconds(max(now - (status.created or now), 0))
    title = context.title_of(status.name) + " (builder)" * status.is_builder
    details = [f"{status.size}: {status.type}", formatting.rate(status.hourly_usd)]
    if status.deadline is not None:
        off = formatting.when(status.deadline, now)
        details += [f"up {age}", f"powers itself off {off}"]
    else:
        details += [f"created {age} ago", "its disk is kept"]
    screen.print("   ".join([title, status.id, status.state]))
    screen.print(f"    {'   '.join(details)}")
    job = " ".join(filter(None, [status.job.id, status.job.text]))
    outputs = f"   outputs {status.outputs}" if status.outputs else ""
    screen.print(f"    job {job}{outputs}")
    if status.job.command:
        screen.print(f"    command: {printable(status.job.command)}")
    if status.job.advice:
        screen.print(f"    {status.job.advice}")
