"""Print the boxes and jobs of this project."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.boxes import other_providers
from onebox.errors import OneboxError
from onebox.jobs import client, follow, history
from onebox.providers.base import Box

if TYPE_CHECKING:
    from onebox.context import BoxContext


def perform(context: BoxContext) -> None:
    """
    Print what is there of this project: boxes, jobs, costs, deadlines.

    With `--name` it is about that box alone. One at another provider is named, with
    what ends it. Without a box up, the end of its last job is said.
    """
    now, one = time.time(), context.settings.source("name") == "--name"
    mine = [
        box
        for box in context.provider.find(context.owner)
        if box.tags.project == context.project
        and (not one or box.tags.name == context.settings.name)
    ]
    others = [
        there
        for there in other_providers.find(context)
        if not one or there.name == context.settings.name
    ]
    if not mine and not others:
        whose = context.title if one else context.settings.project
        context.screen.print(f"{whose}: no box is up")
        past = history.last(context, whatever_name=not one)
        if past is not None:
            context.screen.print(f"    last job {past.job}: {past.how}")
        return
    for box in sorted(mine, key=lambda box: box.tags.name):
        name = box.tags.name if box.tags.kind == "box" else f"{box.tags.name} (builder)"
        up = formatting.seconds(max(now - box.created, 0))
        title = [f"{context.settings.project}/{name}", box.id, box.state]
        about = [
            f"{box.offer.name}: {box.offer.type}",
            formatting.rate(box.offer.hourly),
        ]
        if box.state == "running":
            off = formatting.clock(box.deadline, now)
            about += [f"up {up}", f"powers itself off at {off}"]
        else:
            about += [f"made {up} ago", "its disk is kept"]
        context.screen.print("   ".join(title))
        context.screen.print(f"    {'   '.join(about)}")
        context.screen.print(f"    job {_job(context, box)}")
    for other in others:
        other_providers.tell(context, other, context.screen.print)


def _job(context: BoxContext, box: Box) -> str:
    if box.state != "running" or box.tags.kind != "box":
        return "-"
    other = context if box.tags.name == context.settings.name else None
    context = other or context.called(box.tags.name)
    try:
        answer = client.status(context.ssh(box).channel())
    except OneboxError as error:
        return f"does not answer: {error.message}"
    finally:
        context.close()
    if answer.state == "none":
        return "none yet"
    text = f"{answer.job} {answer.state}"
    if answer.record is not None:
        text += f", {follow.describe(answer.record)}"
    elif answer.state == "lost":
        text += f": {answer.why}"
    elif answer.started:
        text += f" {formatting.seconds(max(time.time() - answer.started, 0))}"
    return text
