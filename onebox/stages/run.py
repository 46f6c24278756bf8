"""Run the job on the box: start it, follow it, fetch its outputs, write its receipt."""

from __future__ import annotations

import hashlib
import json
import secrets as randomness
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.boxes import bring_up
from onebox.errors import ConfigError, JobFailed, Lost, Preempted, UsageError
from onebox.jobs import client, preemption, receipt, run_history
from onebox.jobs.follow import watch
from onebox.jobs.output_paths import configured_roots, roots
from onebox.jobs.receipt import OutputCount, Receipt
from onebox.jobs.run_history import Run
from onebox.providers.base import Box
from onebox.remote.answers import ExitRecord, JobStatus
from onebox.remote.channel import AgentError
from onebox.stages import (
    fetch,
    image,
    preemption_recovery,
    previous_outputs,
    push,
    salvage,
)
from onebox.transfer import fetch_outputs

if TYPE_CHECKING:
    from onebox.context import BoxContext


# Python buffers a few kilobytes of output when it writes to a pipe, which would delay
# the live output. `env = { PYTHONUNBUFFERED = "" }` restores the buffer.
LIVE = {"PYTHONUNBUFFERED": "1"}


def reason(context: BoxContext) -> str | None:
    """Return why the job has to run, None if `when = "changed"` allows to skip it."""
    if context.settings.run.when != "changed":
        return "a job always runs"
    last_receipt = receipt.last_good(context)
    if last_receipt is None:
        return "it has not succeeded yet"
    image_reason = image.reason(context)
    if image_reason:
        return f"image: {image_reason}"
    boot_image = image.find(context)
    current = _inputs(
        context, push.digest(context), boot_image.id if boot_image else ""
    )
    before = last_receipt.key or {}
    changed = [name for name, value in current.items() if before.get(name) != value]
    if changed:
        return f"{formatting.first_names(changed)} changed"
    missing = fetch_outputs.changed_here(context.into, context.fetch_memory)
    return f"outputs have changed since the fetch: {missing}" if missing else None


def check(context: BoxContext) -> None:
    """Raise OneboxError if the job cannot start, for a reason visible from here."""
    if not context.invocation.own_command:
        configured_command(context)
    secret_values(context)


def perform(
    context: BoxContext,
    argv: Sequence[str] | None,
    *,
    line: str | None = None,
    detach: bool = False,
    yes: bool = False,
) -> Receipt | None:
    """
    Run the job and fetch its outputs; return the receipt.

    If the same command has succeeded on this box and its outputs are not fetched,
    they are fetched first. Then the user is asked whether to run it again; without a
    terminal it runs.

    If the cloud preempts a spot box, the job is restarted on another box, from its
    last checkpoints.

    Args:
        argv: The command as words.

        line: The command as a shell line. Without both, [run] command runs.

        detach: Return once the job has started.

        yes: Run a finished command again without asking.

    Raises:
        JobFailed: The job's own exit code is not 0. Log and outputs are fetched.

        Preempted: The cloud preempted the box, and the job is not restarted.
    """
    configured = argv is None and line is None
    if configured and reason(context) is None:
        context.screen.line(
            "run", "done", "up to date", "command, code, data and image unchanged"
        )
        return None
    context.lock()
    box = bring_up.wait_until_ready(context)
    shell_line = (line or configured_command(context)) if argv is None else None
    command = _Command(argv, shell_line, secret_values(context), configured)
    unfetched_job = _unfetched_job(context, command.line)
    last_job = previous_outputs.fetch_outputs(
        context, box, only=context.invocation.only
    )
    if _has_succeeded(last_job, unfetched_job) and not _confirm_rerun(
        context, unfetched_job, yes
    ):
        return None
    run, on_new_box = preemption_recovery.resume_or_begin(
        context, command.line, last_job
    )
    if on_new_box:
        context.screen.note(f"resuming the run of job {run.id}")
        preemption_recovery.restore(context, run, box)
    if detach:
        with context.chain.timed("run"):
            run = _record_attempt(context, command, run, box)
            _start(context, command, run, box)
        context.invocation.keep = context.invocation.detached = True
        _print_detached(context, box, run.job)
        return None
    return _run_attempts(context, command, run, box)


def configured_command(context: BoxContext) -> str:
    """Return [run] command. Raises ConfigError if there is none."""
    command = context.settings.run.command
    if not command:
        raise ConfigError(
            "there is nothing to run: onebox.toml has no [run] command",
            next="inv run -- python job.py, or inv init",
        )
    return command


def secret_values(context: BoxContext) -> dict[str, str]:
    """Return the values of [run] secrets. Raises UsageError if one is not set."""
    names = context.settings.run.secrets
    missing = [name for name in names if name not in context.environ]
    if missing:
        raise UsageError(
            f"[run] secrets: {formatting.first_names(missing)} is not in the "
            "environment",
            next=f"export {missing[0]}=…",
        )
    return {name: context.environ[name] for name in names}


@dataclass(frozen=True)
class _Command:
    """
    What to run: words or a line of shell.

    Attributes:
        argv: The words, None if it is a line of shell.

        shell_line: The line of shell, None if it is words.

        secrets: The values of [run] secrets.

        configured: Whether it is [run] command.
    """

    argv: Sequence[str] | None
    shell_line: str | None
    secrets: Mapping[str, str] = field(repr=False)
    configured: bool

    @property
    def line(self) -> str:
        """Return the command as a line of shell."""
        if self.shell_line is not None:
            return self.shell_line
        return shlex.join(self.argv or ())


def _run_attempts(
    context: BoxContext, command: _Command, run: Run, box: Box
) -> Receipt:
    """Run the job until an attempt is not preempted; return the receipt."""
    attempt = 1
    while True:
        run = _record_attempt(context, command, run, box)
        run, job_receipt = _run_attempt(context, command, run, box, attempt)
        if job_receipt is not None:
            return job_receipt
        box, attempt = preemption_recovery.next_box(context, run, box, attempt)
        attempts = context.settings.limits.retries + 1
        context.screen.note(f"attempt {attempt} of {attempts}")


def _record_attempt(context: BoxContext, command: _Command, run: Run, box: Box) -> Run:
    """Record an attempt before it starts, so that a crash cannot lose its job."""
    job_id = time.strftime("%Y%m%d-%H%M%S-") + randomness.token_hex(2)
    context.chain.started_jobs += 1
    context.chain.job_state = "starting"
    usual = context.into == context.usual_into
    context.store.update(
        job=job_id,
        job_outputs="\n".join(configured_roots(context)),
        job_command=command.line,
        job_started=time.time(),
        fetched="",
        into="",
        job_into="" if usual else context.path_to_record(context.into),
        discarded=False,
    )
    return run_history.write(context, run.with_attempt(job_id, box))


def _start(context: BoxContext, command: _Command, run: Run, box: Box) -> None:
    """Start the recorded attempt."""
    try:
        client.start(
            context,
            box,
            job_id=run.job,
            argv=command.argv,
            line=command.shell_line,
            env={**LIVE, **context.settings.run.env},
            secrets=command.secrets,
            outputs=[path for path in roots(context) if path.endswith("/")],
        )
    except (UsageError, AgentError):
        run_history.withdraw(context, run)
        context.chain.job_state = ""
        raise
    context.chain.job_state = "started"


def _run_attempt(
    context: BoxContext, command: _Command, run: Run, box: Box, attempt: int
) -> tuple[Run, Receipt | None]:
    """
    Run the job once and fetch its outputs.

    Returns:
        The run, and the receipt: None if the cloud preempted the box and the job has
        to be restarted.

    Raises:
        JobFailed: The job's own exit code is not 0.

        Preempted: The cloud preempted the box, and the job is not restarted.
    """
    began = time.time()
    try:
        with context.chain.timed("run"):
            _start(context, command, run, box)
            record = watch(context, box, run.job, run=run.id, attempt=attempt)
    except (Lost, Preempted) as error:
        if not preemption.preemption_reason(context, box):
            raise
        run = run_history.write(context, run.with_end(time.time() - began, ended=False))
        refusal = preemption_recovery.restart_refusal(context, run, box, attempt)
        if refusal:
            raise preemption_recovery.given_up(context, run, box, refusal) from error
        return run, None
    ended_by_itself = preemption.ended_by_itself(context, box, record)
    run = run_history.write(
        context, run.with_end(record.seconds, ended=ended_by_itself)
    )
    job_receipt = _make_receipt(context, command, run, box, record)
    refusal = preemption_recovery.restart_refusal(context, run, box, attempt)
    if not ended_by_itself:
        if refusal:
            _fetch_before_preemption(context, run, box, job_receipt)
            raise preemption_recovery.given_up(context, run, box, refusal)
        return run, None
    try:
        return run, _finish(context, run, job_receipt, record)
    except (Lost, Preempted):
        # The box went before its outputs were fetched. A failed job is not restarted.
        preempted = preemption.preemption_reason(context, box, ended=True)
        if refusal or record.code or not preempted:
            raise
    run = run_history.write(context, run.with_end(record.seconds, ended=False))
    return run, None


def _make_receipt(
    context: BoxContext, command: _Command, run: Run, box: Box, record: ExitRecord
) -> Receipt:
    succeeded = record.cause == "exit" and not record.code
    key = None
    if command.configured and succeeded and context.chain.pushed_digest:
        # The digest of the push: local files may have been edited since.
        key = _inputs(context, context.chain.pushed_digest, box.image)
    return receipt.make(
        context,
        box,
        run.job,
        command.line,
        record,
        attempts=run_history.account(run, box),
        key=key,
    )


def _finish(
    context: BoxContext, run: Run, draft: Receipt, ended: ExitRecord
) -> Receipt:
    """
    Fetch a finished job's outputs and write its receipt.

    Raises:
        JobFailed: The job's exit code is not 0.
    """
    context.chain.receipt = draft
    try:
        if not context.invocation.only:
            fetched = fetch.perform(context, caller="run", ended=ended)
            draft = replace(draft, outputs=OutputCount(fetched.files, fetched.bytes))
    finally:
        written = context.chain.receipt = receipt.write(context, draft)
    preemption_recovery.remove_kept_outputs(context, run)
    if written.exit:
        raise JobFailed(written.exit)
    return written


def _fetch_before_preemption(
    context: BoxContext, run: Run, box: Box, draft: Receipt
) -> None:
    """Fetch from a box that the cloud is about to stop; it may stop meanwhile."""
    context.chain.receipt = draft
    try:
        salvage.last_pull(context, run, box)
        if not context.invocation.only:
            fetched = fetch.perform(context, caller="run")
            draft = replace(draft, outputs=OutputCount(fetched.files, fetched.bytes))
    except (Lost, Preempted):
        context.screen.note(f"{box.id} was gone before all outputs were fetched")
    finally:
        context.chain.receipt = receipt.write(context, draft)


def _unfetched_job(context: BoxContext, command: str) -> str:
    """Return the last job, if it ran this command and its outputs were not fetched."""
    record = context.store.record
    same = record.job_command == command and not record.discarded
    # The push of this line may just have fetched them.
    unfetched = not record.fetched or context.chain.fetched_earlier_job == record.job
    return record.job if same and unfetched else ""


def _has_succeeded(last_job: JobStatus | None, job_id: str) -> bool:
    """Return whether the last job is *job_id* and has exited with 0."""
    if last_job is None or last_job.job != job_id or last_job.record is None:
        return False
    return (last_job.record.cause, last_job.record.code) == ("exit", 0)


def _confirm_rerun(context: BoxContext, job_id: str, yes: bool) -> bool:
    """Ask whether to run a finished command again; without a terminal, run it."""
    screen = context.screen
    ended = f"job {job_id} has succeeded; its outputs are fetched now"
    if yes or not screen.can_ask:
        screen.note(f"{ended}; the same command runs again")
        return True
    if screen.ask(f"{ended}. Type yes to run the same command again:", "yes"):
        return True
    screen.line("run", "done", "up to date", f"job {job_id} has succeeded")
    return False


def _print_detached(context: BoxContext, box: Box, job_id: str) -> None:
    idle = context.settings.limits.idle_minutes
    context.screen.line("run", "done", "started", f"job {job_id}, detached")
    context.screen.note("follow it: inv logs     stop it: inv cancel")
    context.screen.note("then:      inv fetch teardown")
    if box.offer.spot and context.settings.limits.retries:
        context.screen.note(
            "a detached job is not restarted if the provider takes the box back: "
            "inv run restarts it"
        )
    context.screen.note(
        f"the box powers itself off {idle:g} min after the job ends, at "
        f"{formatting.clock(box.deadline, time.time())} at the latest; its disk is kept"
    )


def _inputs(context: BoxContext, files: str, image_id: str) -> dict[str, str]:
    """
    Return hashes of all that a job's result depends on.

    Args:
        files: The digest of code and data.

        image_id: The image that the box boots from, "" for the provider's base.
    """
    settings = context.settings
    base = settings.image.use or settings.image.base
    run = json.dumps([settings.run.command, dict(settings.run.env)], sort_keys=True)
    return {
        "command": hashlib.sha256(run.encode()).hexdigest()[:16],
        "code or data": files,
        "image": image_id or base,
    }
