"""
Notify the user of the end of a run: the bell, and `[notify]` command and url.

The url is called by a client that follows the job, or by the box. The command runs on
this machine, once for each job: in the first command here that learns of its end.
"""

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
from onebox.errors import OneboxError, StateError
from onebox.jobs import receipt
from onebox.jobs.receipt import Receipt
from onebox.providers.values import Box
from onebox.remote import answers
from onebox.remote.job_answers import ExitRecord
from onebox.store.atomic_files import NO_LINK, open_folder

# The bell rings if the command was busy for at least this many seconds.
BELL_SECONDS = 10.0
# [notify] command may take this many seconds.
COMMAND_SECONDS = 30.0
LAST_LINE_BYTES = 500
# A job of which the command was notified has a file of this name in its folder.
NOTIFIED = "notified"


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
    Tell the box that this command posts to the url, unless the box already has.

    If the box does not answer, this command posts.
    """
    notice, settings = context.chain.notice, context.settings.notify
    if notice is None:
        return
    notice.job, notice.claimed, notice.ended = job_id, True, True
    if settings.url:
        with suppress(OneboxError):
            notice.claimed = answers.claimed(
                context.call_resuming(
                    lambda channel: channel.request("claim", job=job_id), box
                )
            )


def learned(
    context: BoxContext, box: Box, job_id: str, record: ExitRecord | None
) -> None:
    """
    Run [notify] command for a job that has ended while no client followed it.

    Nothing is done if the job runs, if another machine has started it, if a command
    that notifies uses the box now, or if the command has run for the job before.
    """
    state, command = context.store.record, context.settings.notify.command
    if not command or record is None or state.job != job_id or context.chain.notice:
        return
    if _was_notified(context, job_id) or _is_followed_here(context):
        return
    if _is_first(context, job_id):
        path = context.job_dir(job_id) / receipt.FILE
        of_job = receipt.read(path) or receipt.make(
            context, box, job_id, state.job_command, record
        )
        _start_command(context, command, job_id, of_job, record.code)


def gave_up(context: BoxContext) -> None:
    """Notify also if the job's end is unknown, because its box is lost."""
    notice = context.chain.notice
    if notice is not None:
        notice.job, notice.claimed = context.store.record.job, True
        notice.ended = False


def _notify(context: BoxContext, notice: Notice, code: int) -> None:
    settings = context.settings.notify
    was_long = time.monotonic() - notice.began >= BELL_SECONDS
    if notice.job and settings.bell and was_long:
        context.screen.bell()
    if not notice.job:
        return
    of_job = receipt.read(context.job_dir(notice.job) / receipt.FILE)
    if settings.url and notice.claimed:
        document = _document(context, notice.job, of_job, code)
        problem = notification.post(settings.url, document)
        if problem:
            # The URL may contain a token, so it is not printed.
            context.screen.warn(f"[notify] url was not reached: {problem}")
    # If the end is unknown now, the command runs again when it is known.
    if settings.command and (not notice.ended or _is_first(context, notice.job)):
        _start_command(context, settings.command, notice.job, of_job, code)


def _is_followed_here(context: BoxContext) -> bool:
    """Return whether another command holds the lock of the box, as `run` does."""
    # The lock itself is not tried, because a command that locks the box at this moment
    # would find it taken.
    return not context.store.locked and context.store.holder() is not None


def _was_notified(context: BoxContext, job: str) -> bool:
    """Return whether [notify] command has run for a job."""
    with suppress(OSError, StateError):
        return os.path.lexists(context.job_dir(job) / NOTIFIED)
    return False


def _is_first(context: BoxContext, job: str) -> bool:
    """Return whether no command of this machine has notified of a job before."""
    # The project folder may be read-only, or bring links if it was cloned.
    with suppress(OSError, StateError), open_folder(context.job_dir(job)) as folder:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_LINK
        os.close(os.open(NOTIFIED, flags, 0o600, dir_fd=folder))
        return True
    return False


def _start_command(
    context: BoxContext, command: str, job: str, of_job: Receipt | None, code: int
) -> None:
    """Run [notify] command to its end; a failure is a warning."""
    document = _document(context, job, of_job, code)
    variables = _variables(context, job, of_job, code)
    problem = _run_command(context, command, document, variables)
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
    return json.dumps({**receipt.HEAD, **known}).encode()


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
