"""Print the boxes and jobs of this project."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from onebox import formatting, subprocess_env
from onebox.boxes import bring_up, other_providers
from onebox.errors import JobFailed, Lost, OneboxError, UsageError
from onebox.jobs import client, follow, history, log, receipt, run_history
from onebox.providers.base import Box
from onebox.remote.answers import JobStatus

if TYPE_CHECKING:
    from onebox.context import Session


def perform(session: Session) -> None:
    """
    Print what is there of this project: boxes, jobs, costs, deadlines.

    With `--name` it is about that box alone. One at another provider is named, with
    what ends it. Without a box up, the end of its last job is said.
    """
    now, one = time.time(), session.settings.source("name") == "--name"
    mine = [
        box
        for box in session.provider.find(session.owner)
        if box.tags.project == session.project
        and (not one or box.tags.name == session.settings.name)
    ]
    others = [
        there
        for there in other_providers.find(session)
        if not one or there.name == session.settings.name
    ]
    if not mine and not others:
        whose = session.title if one else session.settings.project
        session.screen.print(f"{whose}: no box is up")
        past = history.last(session, whatever_name=not one)
        if past is not None:
            session.screen.print(f"    last job {past.job}: {past.how}")
        return
    for box in sorted(mine, key=lambda box: box.tags.name):
        name = box.tags.name if box.tags.kind == "box" else f"{box.tags.name} (builder)"
        up = formatting.seconds(max(now - box.created, 0))
        title = [f"{session.settings.project}/{name}", box.id, box.state]
        about = [f"{box.size.name}: {box.size.type}", formatting.rate(box.size.hourly)]
        if box.state == "running":
            off = formatting.clock(box.deadline, now)
            about += [f"up {up}", f"powers itself off at {off}"]
        else:
            about += [f"made {up} ago", "its disk is kept"]
        session.screen.print("   ".join(title))
        session.screen.print(f"    {'   '.join(about)}")
        session.screen.print(f"    job {_job(session, box)}")
    for other in others:
        other_providers.tell(session, other, session.screen.print)


def _job(session: Session, box: Box) -> str:
    if box.state != "running" or box.tags.kind != "box":
        return "-"
    other = session if box.tags.name == session.settings.name else None
    session = other or session.called(box.tags.name)
    try:
        answer = client.status(session.door(box).link())
    except OneboxError as error:
        return f"does not answer: {error.message}"
    finally:
        session.hang_up()
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
