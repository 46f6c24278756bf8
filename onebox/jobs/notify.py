"""Notify the user of the end of a run: the bell, and `[notify]` command and url."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from onebox import formatting, subprocess_env
from onebox.agent.file_names import printable
from onebox.agent.jobs import notification
from onebox.chain_state import Notice
from onebox.context import BoxContext
from onebox.errors import OneboxError
from onebox.jobs import receipt
from onebox.jobs.receipt import Receipt
from onebox.providers.values import Box
from onebox.remote import answers

# The bell rings if the command was busy for at least this many seconds.
BELL_SECONDS = 10.0
# [notify] command may take this many seconds.
COMMAND_SECONDS = 30.0
LAST_LINE_BYTES = 500


@contextmanager
def at_end(context: BoxContext) -> Iterator[None]:
    """
    Follow a run in the body, and notify of its end.

    A run that the user detaches from has not ended: then the box notifies later. A
    notification that fails is only a warning.
    """
    notice = context.chain.notice = Notice(time.monotonic())
    try:
        yield
    except OneboxError as error:
        _notify(context, notice, error.code)
        raise
    else:
        _notify(context, notice, 0)
    finally:
        context.chain.notice = None


def claim(context: BoxContext, box: Box, job_id: str) -> None:
    """
    Tell the box that this command notifies of a job's end, unless the box already has.

    If the box does not answer, this command notifies.
    """
    notice, settings = context.chain.notice, context.settings.notify
    if notice is None:
        return
    notice.job, notice.claimed = job_id, True
    if settings.url or settings.command:
        with suppress(OneboxError):
            notice.claimed = answers.claimed(
                context.call_resuming(
                    lambda channel: channel.request("claim", job=job_id), box
                )
            )


def gave_up(context: BoxContext) -> None:
    """Notify also if the job's end is unknown, because its box is lost."""
    notice = context.chain.notice
    if notice is not None:
        notice.job, notice.claimed = context.store.record.job, True


def _notify(context: BoxContext, notice: Notice, code: int) -> None:
    settings = context.settings.notify
    was_long = time.monotonic() - notice.began >= BELL_SECONDS
    if notice.job and settings.bell and was_long:
        context.screen.bell()
    if not notice.claimed:
        return
    of_job = receipt.read(context.job_dir(notice.job) / receipt.FILE)
    document = _document(context, notice.job, of_job, code)
    if settings.url:
        problem = notification.post(settings.url, document)
        if problem:
            # The URL may contain a token, so it is not printed.
            context.screen.warn(f"[notify] url was not reached: {problem}")
    if settings.command:
        variables = _variables(context, notice.job, of_job, code)
        problem = _run_command(context, settings.command, document, variables)
        if problem:
            context.screen.warn(f"[notify] command failed: {problem}")


def _document(
    context: BoxContext, job: str, of_job: Receipt | None, code: int
) -> bytes:
    """Return the receipt as JSON; without a receipt, what is known of the job."""
    if of_job is not None:
        return of_job.encode()
    record = context.store.record
    command = record.job_command if record.job == job else ""
    known = {"job": job, "command": command, "exit": code, "cause": "unknown"}
    return json.dumps({"format": receipt.FORMAT, **known}).encode()


def _variables(
    context: BoxContext, job: str, of_job: Receipt | None, code: int
) -> dict[str, str]:
    """Return the variables that [notify] command gets beside those of this process."""
    variables = {
        "ONEBOX_JOB": job,
        "ONEBOX_EXIT": str(code),
        "ONEBOX_TITLE": context.title,
    }
    if of_job is not None:
        variables["ONEBOX_CAUSE"] = of_job.cause
        variables["ONEBOX_COMMAND"] = of_job.command
        variables["ONEBOX_SECONDS"] = f"{of_job.seconds:.0f}"
    return variables


def _run_command(
    context: BoxContext, command: str, document: bytes, variables: dict[str, str]
) -> str:
    """
    Run a shell line in the project folder; return what went wrong, "" if nothing did.

    Its output is not printed, except for its last line if it fails.
    """
    # Files are used instead of pipes, because a program that the command leaves in the
    # background would keep a pipe open.
    with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as output:
        stdin.write(document)
        stdin.seek(0)
        try:
            process = subprocess.Popen(
                ["/bin/sh", "-c", command],
                stdin=stdin,
                stdout=output,
                stderr=output,
                cwd=context.root,
                env={**subprocess_env.environment(), **variables},
                start_new_session=True,
            )
        except OSError as error:
            return error.strerror or str(error)
        try:
            code = process.wait(COMMAND_SECONDS)
        except subprocess.TimeoutExpired:
            limit = formatting.seconds(COMMAND_SECONDS)
            return f"it was ended, because it took more than {limit}"
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if not code:
            return ""
        output.seek(max(output.seek(0, os.SEEK_END) - LAST_LINE_BYTES, 0))
        lines = output.read().decode("utf-8", "replace").splitlines()
        last = printable(lines[-1]) if lines else ""
        return f"exit {code}{f': {last}' if last else ''}"
