"""Print the boxes and jobs of this project."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.boxes import bring_up, other_providers
from onebox.errors import OneboxError
from onebox.jobs import finished_jobs, follow, remote_job
from onebox.jobs.memory_advice import memory_advice
from onebox.providers.values import Box
from onebox.stages import notebook_files, queue
from onebox.ui.table import Cell

if TYPE_CHECKING:
    from onebox.context import BoxContext

HEAD = ("name", "state", "type", "price", "job", "powers off", "outputs")
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
)


@dataclass(frozen=True)
class BoxJob:
    """
    The latest job of a box; None means unknown.

    Attributes:
        job: Its id, "" if no job has run or if it is unknown.

        state: "none", "running", "succeeded", "failed", "cancelled", "ended" (with
            code 0, but not by itself), or "unknown".

        text: The state in words, with the reason.

        seconds: How long it has run.

        advice: What to change if it had too little memory, else "".
    """

    job: str
    state: str
    text: str
    seconds: float | None = None
    exit: int | None = None
    advice: str = ""


@dataclass(frozen=True)
class BoxStatus:
    """
    A box of this project with its cost, deadline and job.

    Attributes:
        name: The `--name` of the box; *title* also has the project.

        is_builder: Whether the box only builds an image.

        hourly: The hourly cost in USD, None if it is unknown.

        created, deadline: Times in seconds since the epoch. The deadline is None if
            the box is off.

        outputs: "fetched", "not fetched", "running" before the job has ended, or "" if
            there was no job or nothing is recorded.
    """

    name: str
    title: str
    box: str
    is_builder: bool
    state: str
    size: str
    type: str
    hourly: float | None
    created: float
    deadline: float | None
    job: BoxJob
    outputs: str


def perform(context: BoxContext) -> None:
    """
    Print each box of this project with its cost, deadline and job.

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
    if context.screen.json:
        context.screen.print_json("status", _fields(context, found, elsewhere))
        return
    if not found and not elsewhere:
        _print_last_job(context, one_name=one_name)
    elif len(found) == 1:
        _print_details(context, found[0])
    elif found:
        _print_table(context, found)
    for other in elsewhere:
        other_providers.print_box(context, other, context.screen.print)
    queue.print_waiting(context, one_name=one_name)


def _fields(
    context: BoxContext,
    found: list[BoxStatus],
    elsewhere: Sequence[other_providers.BoxAtOtherProvider],
) -> dict[str, object]:
    """Return what `--json` prints; times are in epoch seconds."""
    waiting = queue.of_project(context)
    return {
        "project": context.settings.project,
        "provider": context.provider.name,
        "boxes": found,
        "at_other_providers": [
            {
                "name": other.name,
                "provider": other.record.provider,
                "error": other.error,
            }
            for other in elsewhere
        ],
        "waiting": {name: len(runs) for name, runs in waiting.items()},
    }


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
    notebook = notebook_files.describe_open(context)
    if notebook and not is_builder and job.state != "running":
        job = replace(job, text=f"{job.text}; {notebook}")
    return BoxStatus(
        name=name,
        title=context.title_of(name),
        box=box.id,
        is_builder=is_builder,
        state=box.state,
        size=box.offer.name,
        type=box.offer.type,
        hourly=box.offer.hourly,
        created=box.created,
        deadline=box.deadline if box.state == "running" else None,
        job=job,
        outputs="" if is_builder else _outputs(context, box, job),
    )


def _read_job(context: BoxContext, box: Box) -> BoxJob:
    """Return the state of a box's latest job."""
    if box.tags.kind != "box":
        return BoxJob("", "none", "-")
    if box.state != "running":
        record = context.store.record
        job = record.job if record.box == box.id else ""
        return BoxJob(job, "unknown", "no information (box is off)")
    try:
        status = remote_job.status(context.ssh(box).channel())
    except OneboxError as error:
        if not bring_up.has_booted(context, box):
            return BoxJob("", "unknown", "still booting")
        reason = f"no information (the box does not answer: {error.message})"
        return BoxJob("", "unknown", reason)
    finally:
        context.close()
    if status.state == "none":
        return BoxJob("", "none", "none yet")
    if status.record is not None:
        words = follow.outcome(status.record)
        return BoxJob(
            status.job,
            words.split(",")[0].split(";")[0],
            words,
            status.record.seconds,
            status.record.code,
            memory_advice(context, box, status.record),
        )
    if status.state == "lost":
        return BoxJob(status.job, "unknown", f"no information ({status.why})")
    seconds = None
    text = "running"
    if status.started:
        now = time.time() + context.ssh(box).clock_ahead
        seconds = max(now - status.started, 0)
        text += f" {formatting.seconds(seconds)}"
    return BoxJob(status.job, "running", text, seconds)


def _outputs(context: BoxContext, box: Box, job: BoxJob) -> str:
    """Return whether the outputs of the latest job were fetched."""
    if job.state == "running":
        return "running"
    record = context.store.record
    if record.box != box.id or not record.job or job.job not in ("", record.job):
        return ""
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
            status.type,
            formatting.rate(status.hourly),
            Cell(status.job.text, _mark(status.job)),
            _deadline(status, now),
            _outputs_cell(status),
        ]
        for status in found
    ]
    context.screen.table(HEAD, rows)


def _pipe_row(status: BoxStatus) -> list[str]:
    job, deadline = status.job, ""
    if status.deadline is not None:
        deadline = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(status.deadline))
    return [
        _name(status),
        status.box,
        status.state,
        status.size,
        status.type,
        "" if status.hourly is None else f"{status.hourly:.4f}",
        job.job,
        job.text,
        "" if job.seconds is None else f"{job.seconds:.1f}",
        deadline,
        status.outputs,
    ]


def _name(status: BoxStatus) -> str:
    return f"{status.name} (builder)" if status.is_builder else status.name


def _mark(job: BoxJob) -> str:
    return {"succeeded": "done", "failed": "failed"}.get(job.state, "kept")


def _outputs_cell(status: BoxStatus) -> Cell:
    text = "-" if status.outputs in ("", "running") else status.outputs
    return Cell(text, {"fetched": "done", "not fetched": "warn"}.get(text, ""))


def _deadline(status: BoxStatus, now: float) -> str:
    if status.deadline is None:
        return "is off"
    return formatting.when(status.deadline, now)


def _print_details(context: BoxContext, status: BoxStatus) -> None:
    now, screen = time.time(), context.screen
    age = formatting.seconds(max(now - status.created, 0))
    title = status.title + " (builder)" * status.is_builder
    details = [f"{status.size}: {status.type}", formatting.rate(status.hourly)]
    if status.deadline is not None:
        off = formatting.when(status.deadline, now)
        details += [f"up {age}", f"powers itself off {off}"]
    else:
        details += [f"created {age} ago", "its disk is kept"]
    screen.print("   ".join([title, status.box, status.state]))
    screen.print(f"    {'   '.join(details)}")
    job = " ".join(filter(None, [status.job.job, status.job.text]))
    outputs = ""
    if status.outputs in ("fetched", "not fetched"):
        outputs = f"   outputs {status.outputs}"
    screen.print(f"    job {job}{outputs}")
    if status.job.advice:
        screen.print(f"    {status.job.advice}")
