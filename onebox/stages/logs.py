"""Follow the job, or print the log of a finished one."""

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
    Follow the job from where the local log ends; its exit code is ours.

    A finished job's log is printed whole, also when its box is gone.
    """
    if session.box is None:
        past = history.last(session)
        if past is not None:
            _replay(session, past)
            return
    box = bring_up.ready(session)
    answer = client.latest(session)
    if answer is None:
        raise UsageError(f"no job has run on {session.title} yet", next="inv run")
    job_id = answer.job
    path = client.log_path(session, job_id)
    shown = 0
    with suppress(FileNotFoundError):
        shown = log.replay(path, session.screen.output, session.screen.output_gone)
    session.doing, session.job_state = "run", "started"
    told = run_history.read(session)
    of_run = told.id if told is not None and told.has(job_id) else job_id
    record = follow.watch(session, box, job_id, run=of_run, shown=shown)
    receipt.keep(session, box, job_id, record)
    run_history.seen(session, job_id, record)
    session.screen.note("then: inv fetch teardown")
    if record.code:
        raise JobFailed(record.code)


def _replay(session: Session, past: history.Ended) -> None:
    """
    Print a job's log as it is kept here; its exit code is ours.

    Raises:
        Lost: Nothing here says how it ended.
    """
    screen = session.screen
    screen.note(
        f"there is no box {session.title}: job {past.job}, from "
        f"{client.log_place(session, past.job)}"
    )
    log.replay(past.log, screen.output, screen.output_gone)
    screen.close_line()
    if past.code is None:
        raise Lost(f"job {past.job}: {past.how}", next="inv run")
    screen.line("run", "failed" if past.code else "done", past.spent, past.how)
    if past.code:
        raise JobFailed(past.code)


