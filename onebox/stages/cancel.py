"""Stop the job on the box."""

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
    """Stop the job: TERM, the grace time, KILL; return when it has ended."""
    box = bring_up.ready(session)
    answer = client.latest(session)
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
        record = client.fate(status)
        run_history.seen(session, status.job, record)
        line.end("", f"{answer.job}: {follow.describe(record)}")
    session.screen.note("then: inv fetch teardown")


