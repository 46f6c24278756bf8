"""Print the boxes and jobs of this project."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.boxes import other_providers
from onebox.errors import OneboxError
from onebox.jobs import finished_jobs, follow, remote_job
from onebox.providers.values import Box
from onebox.stages import queue

if TYPE_CHECKING:
    from onebox.context import BoxContext


def perform(context: BoxContext) -> None:
    """
    Print each box of this project with its cost, deadline and job.

    With `--name`, only the box of that name is printed. A box at another provider is
    printed with the command that removes it. If there is no box, the outcome of the
    last job is printed.
    """
    one_name = context.settings.source("name") == "--name"
    boxes = [
        box
        for box in context.provider.find(context.owner)
        if box.tags.project == context.project
        and (not one_name or box.tags.name == context.settings.name)
    ]
    elsewhere = [
        box
        for box in other_providers.find(context)
        if not one_name or box.name == context.settings.name
    ]
    if not boxes and not elsewhere:
        _print_last_job(context, one_name=one_name)
        queue.print_waiting(context, one_name=one_name)
        return
    for box in sorted(boxes, key=lambda box: box.tags.name):
        _print_box(context, box)
    for other in elsewhere:
        other_providers.print_box(context, other, context.screen.print)
    queue.print_waiting(context, one_name=one_name)


def _print_last_job(context: BoxContext, *, one_name: bool) -> None:
    title = context.title if one_name else context.settings.project
    context.screen.print(f"{title}: no box is up")
    finished = finished_jobs.latest(context, whatever_name=not one_name)
    if finished is not None:
        context.screen.print(f"    last job {finished.job}: {finished.ending}")


def _print_box(context: BoxContext, box: Box) -> None:
    now = time.time()
    name = box.tags.name if box.tags.kind == "box" else f"{box.tags.name} (builder)"
    age = formatting.seconds(max(now - box.created, 0))
    title = [context.title_of(name), box.id, box.state]
    details = [f"{box.offer.name}: {box.offer.type}", formatting.rate(box.offer.hourly)]
    if box.state == "running":
        off = formatting.clock(box.deadline, now)
        details += [f"up {age}", f"powers itself off at {off}"]
    else:
        details += [f"created {age} ago", "its disk is kept"]
    context.screen.print("   ".join(title))
    context.screen.print(f"    {'   '.join(details)}")
    context.screen.print(f"    job {_describe_job(context, box)}")


def _describe_job(context: BoxContext, box: Box) -> str:
    """Read the state of a box's latest job over ssh; return a phrase for it."""
    if box.state != "running" or box.tags.kind != "box":
        return "-"
    if box.tags.name != context.settings.name:
        context = context.with_name(box.tags.name)
    try:
        status = remote_job.status(context.ssh(box).channel())
    except OneboxError as error:
        return f"unknown: the box does not answer ({error.message})"
    finally:
        context.close()
    if status.state == "none":
        return "none yet"
    text = f"{status.job} {status.state}"
    if status.record is not None:
        text += f", {follow.describe(status.record)}"
    elif status.state == "lost":
        text += f": {status.why}"
    elif status.started:
        text += f" {formatting.seconds(max(time.time() - status.started, 0))}"
    return text
