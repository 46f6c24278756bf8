"""Start a job on a box, follow its log, and return its exit record."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from onebox import formatting
from onebox.agent import protocol
from onebox.agent.jobs.engine import NOT_STARTED
from onebox.context import BoxContext
from onebox.errors import (
    Busy,
    ConnectionLost,
    Lost,
    ProtocolError,
    Throttled,
    Unclear,
)
from onebox.images import job_packages
from onebox.jobs import receipt
from onebox.jobs.log import LONGEST, JobLog
from onebox.providers.values import Box
from onebox.remote import answers, failures
from onebox.remote.answers import UnitLogAnswer
from onebox.remote.channel import AgentChannel, AgentError
from onebox.remote.failures import KeyRefused, ProxyRefused
from onebox.remote.job_answers import ExitRecord, JobStatus, Sample
from onebox.remote.json_fields import Fields

# The longest pause between two attempts to reconnect. A connection can be down for
# hours while the job runs, for example on a closed laptop.
LONGEST_PAUSE = 30.0
# The agent sends a sample of the box's load each second. If nothing arrives for this
# long, the agent hangs, even if ssh still answers.
SILENCE_SECONDS = 60.0
# After this many refusals of our key in a row, the box's authorized_keys must have
# been changed.
REFUSALS = 6
# A gap is a part of the log that the box has dropped. A log nearly always has data
# between two gaps. An agent that sends more gaps than this in a row is not ours.
GAPS_IN_A_ROW = 100


def refuse_running(context: BoxContext, latest: JobStatus | None) -> None:
    """Raise Busy if the latest job on the box is still running."""
    if latest is not None and latest.runs:
        raise Busy(
            f"{context.title} is busy: job {latest.job} still runs",
            next=context.next_if_busy,
        )


def start(
    context: BoxContext,
    box: Box,
    *,
    job_id: str,
    argv: Sequence[str] | None = None,
    shell_command: str | None = None,
    units: Mapping[str, Any] | None = None,
    env: Mapping[str, str] | None = None,
    secrets: Mapping[str, str] | None = None,
    outputs: Sequence[str] = (),
) -> str:
    """
    Start a job on the box. A second call with the same id has no effect.

    Return its id in Slurm or Ray, "" if it is unknown, or if the box itself runs it.

    Args:
        argv: The command as a list of words. If it is None, *shell_command* is used.

        shell_command: The command as a text for a shell.

        units: The units of `map`, as the agent expects them, instead of a command.

        outputs: The paths of the outputs; those that end in "/" are created.

    Raises:
        Busy: Another job is running on the box.
    """
    command: dict[str, Any] = {"shell": shell_command}
    if units is not None:
        command = {"units": units}
    elif argv is not None:
        command = {"argv": list(argv)}

    packages = job_packages.packages(context)

    def ask(channel: AgentChannel) -> dict[str, Any]:
        return channel.request(
            "start",
            job=job_id,
            env=dict(env or {}),
            secrets=dict(secrets or {}),
            outputs=[path for path in outputs if path.endswith("/")],
            roots=list(outputs),
            cancel_grace=context.settings.run.cancel_grace,
            max_log=context.settings.limits.max_log,
            packages=packages,
            # The box notifies if no client is attached when the job ends.
            notify=context.settings.notify.url or "",
            **command,
        )

    try:
        answer: dict[str, Any] = context.call_resuming(ask, box)
    except AgentError as error:
        if error.kind == "busy":
            raise Busy(
                f"{context.title} is busy: {error.message}", next=context.next_if_busy
            ) from error
        if error.kind == "start" and box.user_ssh:
            what = "a smaller --vm" if units is None else "less [map] cpus or memory"
            error.next = f"fix [slurm] in onebox.toml, or {what}; then inv doctor"
        if error.kind == "start" and box.is_folder:
            error.next = "inv doctor, then the same command again"
        if error.kind == "package":
            error.next = "[ray] storage, a folder that all nodes see; or [push] exclude"
        raise
    return Fields(answer, "start of a job").text("engine_id")


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
    Copy a job's log to the file *log* as it grows, and return the job's exit record.

    The offset in each request is the size of the local copy, so no byte is lost or
    repeated after a broken connection or by a later command.

    Args:
        output: Called with each part of the log.

        sample: Called with each sample of the box's load.

        gone: Called at each gap, with the number of bytes that the box has dropped
            there because the log was too long.

        shown: How many bytes of the log have already been shown. None means all bytes
            of the local copy.

    Raises:
        Lost: The exit code is unknown, the box is gone, or the box refuses our key.
    """
    pause, is_down, refused, why = 0.2, False, 0, ""
    with JobLog(log, shown, context.settings.limits.max_log) as copy:
        while True:
            before = copy.size
            try:
                channel = context.ssh(box).channel()
                answer = _follow(channel, job_id, copy, output, sample, gone)
                if context.chain.stage == "run":
                    # The job has ended, so from here on a Ctrl-C is reported as an
                    # interrupt of the fetch.
                    context.chain.stage = "fetch"
                break
            except ConnectionLost as error:
                context.ssh(box).close(force=True)
                # Unclear and Throttled are ignored, because without a network the
                # provider cannot be reached either.
                with suppress(Unclear, Throttled):
                    context.boxes.check_runs(box)
                is_refused = isinstance(error, (KeyRefused, ProxyRefused))
                refused = refused + 1 if is_refused else 0
                if refused == REFUSALS:
                    raise failures.lost_job(box, job_id, error) from error
                if copy.size > before:
                    pause, is_down = 0.2, False
                pause = min(pause * 2, LONGEST_PAUSE)
                if not is_down:
                    context.screen.note(
                        "connection lost; trying again. The job keeps running"
                    )
                elif box.proxy and error.message != why:
                    why = error.message
                    context.screen.note(f"still not connected: {why}")
                is_down = True
                time.sleep(pause)
        copy.flush()
        copy.keep_marks(answer.marks)
    return exit_record(answer)


def catch_up(context: BoxContext, box: Box, job_id: str) -> JobStatus:
    """
    Copy the log up to now to this machine without printing it; return the job's status.
    """
    limit = context.settings.limits.max_log
    with JobLog(log_path(context, job_id), limit=limit) as copy:

        def ask(channel: AgentChannel) -> JobStatus:
            return _follow(
                channel, job_id, copy, lambda data: None, None, None, wait=False
            )

        answer: JobStatus = context.call_resuming(ask, box)
        copy.flush()
        copy.keep_marks(answer.marks)
    return answer


def log_path(context: BoxContext, job_id: str) -> Path:
    """Return the path of the local copy of a job's log."""
    return context.job_dir(job_id) / "log"


def log_name(context: BoxContext, job_id: str) -> str:
    """Return the path of a job's log relative to the project, for messages."""
    return formatting.path(str(log_path(context, job_id).relative_to(context.root)))


def fetch_log(
    context: BoxContext,
    box: Box,
    latest: JobStatus,
    output: Callable[[bytes], None] = lambda data: None,
    gone: Callable[[int], None] | None = None,
) -> None:
    """
    Complete the local log of a job that ended while no client was connected.

    *latest* is the status of this job. If the job still runs, nothing is done. If its
    exit record is known and it has no receipt, one is written.
    """
    job_id = latest.job
    if latest.state in ("none", "running") or job_id.startswith("image-"):
        return
    limit = context.settings.limits.max_log
    with JobLog(log_path(context, job_id), limit=limit) as copy:
        if copy.size < latest.log_bytes:
            answer: JobStatus = context.call_resuming(
                lambda channel: _follow(channel, job_id, copy, output, None, gone),
                box,
            )
            copy.flush()
            copy.keep_marks(answer.marks)
    if latest.record is not None:
        receipt.keep(context, box, job_id, latest.record)


def keep_log(context: BoxContext, box: Box, seconds: float) -> JobStatus | None:
    """
    Fetch the log of the latest job up to now, and write its receipt if it has ended.

    No attempt is repeated. This takes about *seconds* at most, whatever the box sends.

    Returns:
        The status of the job, None if no job has run on the box.

    Raises:
        OneboxError: The box does not answer in time, or answers something else. What
            has arrived of the log until then is kept.
    """
    end = time.monotonic() + seconds

    def left() -> float:
        return max(end - time.monotonic(), 0.0)

    channel = context.ssh(box).channel(within=seconds)
    channel.begin("job", job=None)
    job = JobStatus.parse(channel.finish(within=left()), None)
    if job.state == "none" or job.job.startswith("image-"):
        return None
    limit = context.settings.limits.max_log
    with JobLog(log_path(context, job.job), limit=limit) as copy:
        try:
            job = _follow(
                channel,
                job.job,
                copy,
                lambda data: None,
                None,
                None,
                wait=False,
                within=left(),
            )
        finally:
            copy.flush()
        copy.keep_marks(job.marks)
    if job.record is not None:
        receipt.keep(context, box, job.job, job.record)
    return job


def exit_record(status: JobStatus) -> ExitRecord:
    """Return the exit record of a job that has ended. Raises Lost if it has none."""
    if status.record is not None:
        return status.record
    if status.why.startswith(NOT_STARTED):
        raise Lost(
            f"job {status.job}: {status.why}",
            next="inv fetch teardown; correct the reason, then the same command again",
        )
    raise Lost(
        f"the outcome of job {status.job} is unknown: "
        f"{status.why or 'the box has no record of it'}",
        next="inv fetch --partial fetches its files; inv logs shows its output",
    )


def latest(context: BoxContext) -> JobStatus | None:
    """Return the status of the latest job on the box, None if there was no job."""
    job: JobStatus = context.call_resuming(status)
    return None if job.state == "none" else job


def status(channel: AgentChannel, job_id: str | None = None) -> JobStatus:
    """Return the status of the job *job_id*; None means the latest job."""
    return JobStatus.parse(channel.request("job", job=job_id), job_id)


def job_runs(context: BoxContext, job_id: str) -> bool:
    """Return whether a job runs on the box."""
    now: JobStatus = context.call_resuming(lambda channel: status(channel, job_id))
    return now.runs


def unit_log(
    channel: AgentChannel,
    job_id: str,
    unit: int,
    offset: int,
    output: Callable[[bytes], None],
) -> tuple[int, UnitLogAnswer]:
    """
    Pass a part of the log of a unit of `map` to *output*.

    Return the number of bytes of this part, and the answer that ends it.

    Args:
        offset: The offset in the log at which the part begins.
    """
    channel.begin("unit_log", job=job_id, unit=unit, offset=offset)
    size = 0
    for kind, payload in channel.frames(silence=SILENCE_SECONDS):
        if kind == b"D":
            size += len(payload)
            if offset + size > LONGEST:
                raise ProtocolError("the box sends a log without end")
            output(payload)
        elif kind == b"A":
            return size, answers.unit_log(protocol.loads(payload))
    raise AssertionError("unreachable")


def _follow(
    channel: AgentChannel,
    job_id: str,
    copy: JobLog,
    output: Callable[[bytes], None],
    sample: Callable[[Sample], None] | None,
    gone: Callable[[int], None] | None,
    *,
    wait: bool = True,
    within: float | None = None,
) -> JobStatus:
    channel.begin("follow", job=job_id, offset=copy.size, wait=wait)
    in_a_row = 0
    for kind, payload in channel.frames(within=within, silence=SILENCE_SECONDS):
        in_a_row = in_a_row + 1 if kind == b"G" else 0
        if in_a_row > GAPS_IN_A_ROW:
            raise ProtocolError("the box sends gaps of a log, but no log")
        if kind == b"D":
            # The part is written before it is printed, so that every byte on the screen
            # is also in the local copy.
            copy.add(payload)
            output(payload)
        elif kind == b"G":
            count = answers.dropped_log_bytes(
                protocol.loads(payload), max(LONGEST - copy.size, 0)
            )
            copy.skip(count)
            if gone is not None:
                gone(count)
        elif kind == b"S" and sample is not None:
            sample(Sample.parse(protocol.loads(payload)))
        elif kind == b"A":
            return JobStatus.parse(protocol.loads(payload), job_id)
    raise AssertionError("unreachable")
