"""Look at a box, come back to its job or end it: status, logs, cancel, ssh."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from .. import children, words
from ..errors import JobFailed, Lost, OneboxError, UsageError
from ..providers.base import Box
from ..transport.answers import JobStatus
from . import arrival, attempts, elsewhere, ended, job, joblog, receipt, watching

if TYPE_CHECKING:
    from ..session import Session


def status(session: Session) -> None:
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
        for there in elsewhere.find(session)
        if not one or there.name == session.settings.name
    ]
    if not mine and not others:
        whose = session.title if one else session.settings.project
        session.screen.print(f"{whose}: no box is up")
        past = ended.last(session, whatever_name=not one)
        if past is not None:
            session.screen.print(f"    last job {past.job}: {past.how}")
        return
    for box in sorted(mine, key=lambda box: box.tags.name):
        name = box.tags.name if box.tags.kind == "box" else f"{box.tags.name} (builder)"
        up = words.seconds(max(now - box.created, 0))
        title = [f"{session.settings.project}/{name}", box.id, box.state]
        about = [f"{box.size.name}: {box.size.type}", words.rate(box.size.hourly)]
        if box.state == "running":
            off = words.clock(box.deadline, now)
            about += [f"up {up}", f"powers itself off at {off}"]
        else:
            about += [f"made {up} ago", "its disk is kept"]
        session.screen.print("   ".join(title))
        session.screen.print(f"    {'   '.join(about)}")
        session.screen.print(f"    job {_job(session, box)}")
    for other in others:
        elsewhere.tell(session, other, session.screen.print)


def logs(session: Session) -> None:
    """
    Follow the job from where the local log ends; its exit code is ours.

    A finished job's log is printed whole, also when its box is gone.
    """
    if session.box is None:
        past = ended.last(session)
        if past is not None:
            _replay(session, past)
            return
    box = arrival.ready(session)
    answer = job.latest(session)
    if answer is None:
        raise UsageError(f"no job has run on {session.title} yet", next="inv run")
    job_id = answer.job
    path = job.log_path(session, job_id)
    shown = 0
    with suppress(FileNotFoundError):
        shown = joblog.replay(path, session.screen.output, session.screen.output_gone)
    session.doing, session.job_state = "run", "started"
    told = attempts.read(session)
    of_run = told.id if told is not None and told.has(job_id) else job_id
    record = watching.watch(session, box, job_id, run=of_run, shown=shown)
    receipt.keep(session, box, job_id, record)
    attempts.seen(session, job_id, record)
    session.screen.note("then: inv fetch teardown")
    if record.code:
        raise JobFailed(record.code)


def _replay(session: Session, past: ended.Ended) -> None:
    """
    Print a job's log as it is kept here; its exit code is ours.

    Raises:
        Lost: Nothing here says how it ended.
    """
    screen = session.screen
    screen.note(
        f"there is no box {session.title}: job {past.job}, from "
        f"{job.log_place(session, past.job)}"
    )
    joblog.replay(past.log, screen.output, screen.output_gone)
    screen.close_line()
    if past.code is None:
        raise Lost(f"job {past.job}: {past.how}", next="inv run")
    screen.line("run", "failed" if past.code else "done", past.spent, past.how)
    if past.code:
        raise JobFailed(past.code)


def cancel(session: Session) -> None:
    """Stop the job: TERM, the grace time, KILL; return when it has ended."""
    box = arrival.ready(session)
    answer = job.latest(session)
    if answer is None or not answer.runs:
        session.screen.line("cancel", "done", "up to date", "no job is running")
        return
    with session.screen.stage("cancel") as line:
        line.doing(
            f"{answer.job}: TERM, then up to {session.settings.run.cancel_grace:g} s"
        )
        ended = session.resuming(
            lambda link: link.ask("cancel", job=answer.job, cause="cancel"), box
        )
        status = JobStatus.parse(ended, answer.job)
        record = job.fate(status)
        attempts.seen(session, status.job, record)
        line.end("", f"{answer.job}: {watching.describe(record)}")
    session.screen.note("then: inv fetch teardown")


def ssh(session: Session, argv: Sequence[str]) -> int:
    """
    Give the terminal to a shell, or a command, on the box; return its exit code.

    The lease is renewed meanwhile: somebody is attached.
    """
    box = arrival.ready(session)
    door = session.door(box)
    # As long as this conversation is open, its own thread renews the lease.
    door.link()
    options = ["-t"] if os.isatty(0) and os.isatty(1) else []
    # One word is a line for the box's shell, as with ssh itself; several are
    # the words of one command.
    words_of_it = [argv[0] if len(argv) == 1 else shlex.join(argv)] if argv else []
    return subprocess.call(
        [*door.argv(*options), *words_of_it], env=children.environment()
    )


def _job(session: Session, box: Box) -> str:
    if box.state != "running" or box.tags.kind != "box":
        return "-"
    other = session if box.tags.name == session.settings.name else None
    session = other or session.called(box.tags.name)
    try:
        answer = job.status(session.door(box).link())
    except OneboxError as error:
        return f"does not answer: {error.message}"
    finally:
        session.hang_up()
    if answer.state == "none":
        return "none yet"
    text = f"{answer.job} {answer.state}"
    if answer.record is not None:
        text += f", {watching.describe(answer.record)}"
    elif answer.state == "lost":
        text += f": {answer.why}"
    elif answer.started:
        text += f" {words.seconds(max(time.time() - answer.started, 0))}"
    return text
