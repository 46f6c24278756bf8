"""Talk to the agent about one job: start it, follow its log, end it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onebox import formatting
from onebox.agent import protocol
from onebox.errors import (
    ConnectionLost,
    Lost,
    ProtocolError,
    Throttled,
    Unclear,
    UsageError,
)
from onebox.jobs import receipt
from onebox.jobs.log import LONGEST, JobLog
from onebox.providers.base import Box
from onebox.remote import answers
from onebox.remote.answers import ExitRecord, JobStatus, Sample
from onebox.remote.channel import AgentChannel, AgentError
from onebox.remote.connection import KeyRefused

if TYPE_CHECKING:
    from onebox.context import BoxContext

# While the job runs the connection may be gone for hours (a closed laptop);
# it is tried again at most this far apart.
LONGEST_PAUSE = 30.0
# The agent sends a sample each second: one that is silent for so long hangs,
# even if ssh itself still answers.
SILENCE_SECONDS = 60.0
# A box that says no to our key this often in a row has been changed.
REFUSALS = 6
# Between two gaps of a log there is nearly always a part of it.
GAPS_IN_A_ROW = 100


def run(
    context: BoxContext,
    box: Box,
    *,
    job_id: str,
    log: Path,
    output: Callable[[bytes], None],
    argv: Sequence[str] | None = None,
    line: str | None = None,
    env: Mapping[str, str] | None = None,
    secrets: Mapping[str, str] | None = None,
    outputs: Sequence[str] = (),
    sample: Callable[[Sample], None] | None = None,
) -> ExitRecord:
    """Start a job, follow it to its end and return its exit record."""
    start(
        context,
        box,
        job_id=job_id,
        argv=argv,
        line=line,
        env=env,
        secrets=secrets,
        outputs=outputs,
    )
    return follow(context, box, job_id, log, output, sample)


def refuse_running(context: BoxContext, latest: JobStatus | None) -> None:
    """Raise UsageError if the latest job on the box still runs."""
    if latest is not None and latest.runs:
        raise UsageError(
            f"job {latest.job} still runs on {context.title}",
            next="inv logs follows it, inv cancel stops it",
        )


def start(
    context: BoxContext,
    box: Box,
    *,
    job_id: str,
    argv: Sequence[str] | None = None,
    line: str | None = None,
    env: Mapping[str, str] | None = None,
    secrets: Mapping[str, str] | None = None,
    outputs: Sequence[str] = (),
) -> None:
    """
    Start a job on the box; doing it twice with the same id starts one.

    Raises:
        UsageError: Another job runs there.
    """
    what: dict[str, Any] = {"shell": line} if argv is None else {"argv": list(argv)}

    def ask(channel: AgentChannel) -> dict[str, Any]:
        return channel.ask(
            "start",
            job=job_id,
            env=dict(env or {}),
            secrets=dict(secrets or {}),
            outputs=list(outputs),
            cancel_grace=context.settings.run.cancel_grace,
            max_log=context.settings.limits.max_log,
            **what,
        )

    try:
        context.resuming(ask, box)
    except AgentError as error:
        if error.kind == "busy":
            raise UsageError(
                f"{context.title} is busy: {error.message}",
                next="inv logs follows it, inv cancel stops it",
            ) from error
        raise


def follow(
    context: BoxContext,
    box: Box,
    job_id: str,
    log: Path,
    output: Callable[[bytes], None],
    sample: Callable[[Sample], None] | None = None,
    gone: Callable[[int], None] | None = None,
    shown: int | None = None,
) -> ExitRecord:
    """
    Bring a job's log here as it grows, and return its exit record.

    The size of the local log is the offset that is asked for, so that neither
    a broken connection nor a later command loses or repeats a byte.

    Args:
        gone: Is told in their place how many bytes of a long log are no longer on
            the box.

        shown: How much of the log has been shown; all that is here if None.

    Raises:
        Lost: The fate of the job is not known, the box is gone, or it does not let
            us in any more.
    """
    pause, out, refused = 0.2, False, 0
    with JobLog(log, shown, context.settings.limits.max_log) as copy:
        while True:
            before = copy.size
            try:
                channel = context.ssh(box).channel()
                answer = _follow(channel, job_id, copy, output, sample, gone)
                if context.doing == "run":
                    # Who stops the command from here on detaches from no job.
                    context.doing = "fetch"
                break
            except ConnectionLost as error:
                context.ssh(box).close(force=True)
                # A laptop without a network cannot ask the cloud either.
                with suppress(Unclear, Throttled):
                    context.still_there(box)
                refused = refused + 1 if isinstance(error, KeyRefused) else 0
                if refused == REFUSALS:
                    raise Lost(
                        f"{box.id} does not let us in any more: {error.message}; "
                        f"job {job_id} may still be running on it",
                        next="was its authorized_keys changed? inv logs tries again; "
                        "inv teardown --discard-outputs gives the box up",
                    ) from error
                if copy.size > before:
                    pause, out = 0.2, False
                pause = min(pause * 2, LONGEST_PAUSE)
                if not out:
                    context.screen.note(
                        "connection lost; trying again. A job does not end with it"
                    )
                out = True
                time.sleep(pause)
        copy.settle()
    return fate(answer)


def log_path(context: BoxContext, job_id: str) -> Path:
    """Return where a job's log is kept here."""
    return context.local_dir / "jobs" / job_id / "log"


def log_place(context: BoxContext, job_id: str) -> str:
    """Say where a job's log is kept, seen from the project."""
    return formatting.path(str(log_path(context, job_id).relative_to(context.root)))


def bring_log(
    context: BoxContext,
    box: Box,
    latest: JobStatus,
    output: Callable[[bytes], None] = lambda data: None,
    gone: Callable[[int], None] | None = None,
) -> None:
    """Have the rest of a job's log here that was over when nobody was attached."""
    job_id = latest.job
    if latest.state in ("none", "running") or job_id.startswith("image-"):
        return
    limit = context.settings.limits.max_log
    with JobLog(log_path(context, job_id), limit=limit) as copy:
        if copy.size < latest.log_bytes:
            context.resuming(
                lambda channel: _follow(channel, job_id, copy, output, None, gone),
                box,
            )
            copy.settle()
    if latest.record is not None:
        receipt.keep(context, box, job_id, latest.record)


def fate(status: JobStatus) -> ExitRecord:
    """Return the exit record of a job that is over. Raises Lost without one."""
    if status.record is not None:
        return status.record
    raise Lost(
        f"nobody knows how job {status.job} ended: {status.why or status.state}",
        next="inv fetch --partial brings what there is; inv logs shows its output",
    )


def latest(context: BoxContext) -> JobStatus | None:
    """Return the status of the latest job, None if there was none."""
    found: JobStatus = context.resuming(status)
    return None if found.state == "none" else found


def status(channel: AgentChannel, job_id: str | None = None) -> JobStatus:
    """Ask the agent about a job, the latest one if none is named."""
    return JobStatus.parse(channel.ask("job", job=job_id), job_id)


def _follow(
    channel: AgentChannel,
    job_id: str,
    copy: JobLog,
    output: Callable[[bytes], None],
    sample: Callable[[Sample], None] | None,
    gone: Callable[[int], None] | None,
) -> JobStatus:
    channel.begin("follow", job=job_id, offset=copy.size)
    in_a_row = 0
    for kind, payload in channel.frames(silence=SILENCE_SECONDS):
        in_a_row = in_a_row + 1 if kind == b"G" else 0
        if in_a_row > GAPS_IN_A_ROW:
            raise ProtocolError("the box sends gaps of a log, and no log")
        if kind == b"D":
            # Here first, then on the screen: what was shown is never missing.
            copy.add(payload)
            output(payload)
        elif kind == b"G":
            count = answers.gone(protocol.loads(payload), max(LONGEST - copy.size, 0))
            copy.skip(count)
            if gone is not None:
                gone(count)
        elif kind == b"S" and sample is not None:
            sample(Sample.parse(protocol.loads(payload)))
        elif kind == b"A":
            return JobStatus.parse(protocol.loads(payload), job_id)
    raise AssertionError("unreachable")
