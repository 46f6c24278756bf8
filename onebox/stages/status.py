"""Find the boxes of this project and their latest jobs."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.boxes import bring_up, other_providers, under_way
from onebox.errors import OneboxError
from onebox.jobs import follow, job_facts, notify, remote_job
from onebox.jobs.memory_advice import memory_advice
from onebox.providers.values import Box
from onebox.remote.job_answers import JobStatus
from onebox.stages import notebook_files, queue, status_print
from onebox.stages.status_values import BoxJob, BoxStatus
from onebox.store.record import Record
from onebox.units import progress as unit_progress

if TYPE_CHECKING:
    from onebox.context import BoxContext

BOOTING = "still booting"


def perform(context: BoxContext) -> tuple[BoxStatus, ...]:
    """
    Print each box of this project with its cost, deadline and job.

    All boxes are returned, those at other providers too. If Python code has called
    onebox, they are not printed.

    Several boxes are a table on a terminal. A box at another provider is printed with
    the command that removes it. If there is no box, the outcome of the last job is
    printed.
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
        status_print.print_last_job(context, one_name=one_name)
    elif len(found) > 1 and context.screen.out.is_terminal:
        status_print.print_table(context, found)
    else:
        for one_box in found:
            status_print.print_details(context, one_box)
    for other in elsewhere:
        other_providers.print_box(context, other, context.screen.print)
    for one in others:
        context.screen.print(one.describe(context.title_of(one.name)))
    queue.print_waiting(context, one_name=one_name)
    return all_boxes


def is_for_one_name(context: BoxContext) -> bool:
    """
    Return whether only the box of one name is asked for.

    `--name` asks for it, and so does a line with the stages of two files of settings,
    on which each file stands for its own box.
    """
    named = context.settings.source("name") == "--name"
    return named or context.invocation.has_other_files


def boxes(context: BoxContext) -> list[BoxStatus]:
    """
    Return the status of each box of this project at its provider, by name.

    See `is_for_one_name` for when it is only one box.
    """
    found = [
        box
        for box in context.provider.find(context.owner)
        if box.tags.project == context.project
        and (not is_for_one_name(context) or box.tags.name == context.settings.name)
    ]
    context.boxes.report_unreadable()
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
        id=box.id,
        provider=context.provider.name,
        is_builder=is_builder,
        state=box.state,
        size=box.offer.name,
        type=box.offer.type,
        hourly_usd=box.offer.hourly,
        created=box.created,
        deadline=_deadline(box),
        job=job,
        outputs=None if is_builder else _outputs(context, box, job),
        identity=box.identity or None,
    )


def _deadline(box: Box | None) -> float | None:
    """Return when a box powers itself off, None if it is off or never does."""
    if box is None or box.state != "running":
        return None
    return box.deadline or None


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
        deadline=_deadline(box),
        job=job,
        outputs=None,
        error=other.error,
        identity=None if box is None else box.identity or None,
    )


def _read_job(context: BoxContext, box: Box) -> BoxJob:
    """Return the state of a box's latest job."""
    if box.tags.kind != "box":
        return BoxJob(None, "none", "-")
    record = context.store.record
    if box.state != "running":
        job = record.job if record.box == box.id and record.job else None
        starts = box.state == "starting"
        text = BOOTING if starts else "no information (box is off)"
        return BoxJob(job, "unknown", text, _command(record, job))
    try:
        status = remote_job.status(context.ssh(box).channel())
    except OneboxError as error:
        if not bring_up.has_booted(context, box):
            return BoxJob(None, "unknown", BOOTING)
        reason = f"no information (the box does not answer: {error.message})"
        return BoxJob(None, "unknown", reason)
    finally:
        context.close()
    if status.state == "none":
        return BoxJob(None, "none", "none yet")
    return replace(_describe(context, box, status), engine_id=status.engine_id)


def _describe(context: BoxContext, box: Box, status: JobStatus) -> BoxJob:
    """Return the state of a job that exists."""
    record = context.store.record
    command = _command(record, status.job)
    if status.record is not None:
        job_facts.note_end(context, status.job, status.record)
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
    if status.waiting:
        return BoxJob(status.job, "running", f"waits: {status.waiting}", command)
    text = "running"
    if status.started:
        now = time.time() + context.ssh(box).clock_ahead
        seconds = max(now - status.started, 0)
        text += f" {formatting.seconds(seconds)}"
    if status.units is not None:
        text += f": {', '.join(unit_progress.describe(status.units))}"
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
