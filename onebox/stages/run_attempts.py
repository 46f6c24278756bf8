"""Run a job, and run it again on another box each time the cloud preempts its box."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.errors import Busy, JobFailed, Lost, Preempted
from onebox.jobs import (
    job_environment,
    job_facts,
    job_ids,
    ports,
    preemption,
    receipt,
    remote_job,
    run_record,
)
from onebox.jobs.follow import watch
from onebox.jobs.receipt import OutputCount, Receipt
from onebox.jobs.run_record import Run
from onebox.project_files import configured_outputs, output_roots
from onebox.providers.values import Box
from onebox.remote.channel import AgentError
from onebox.remote.job_answers import ExitRecord
from onebox.stages import fetch, fetch_preempted, preemption_recovery
from onebox.units import job as unit_job
from onebox.units.job import UnitJob

if TYPE_CHECKING:
    from onebox.context import BoxContext


@dataclass(frozen=True)
class Command:
    """
    A command to run, which is either a list of words or a shell command.

    Attributes:
        argv: The words, None if the command is a shell command.

        shell_command: The shell command. It is not used if there are words.

        secrets: The values of the variables that `[run] secrets` names, by name.

        configured: Whether the command is the one that [run] in onebox.toml gives.

        units: The units of `map`, which are run instead; None for a command.
    """

    argv: Sequence[str] | None
    shell_command: str | None
    secrets: Mapping[str, str] = field(repr=False)
    configured: bool = False
    units: UnitJob | None = None

    @property
    def text(self) -> str:
        """Return the command as one text."""
        if self.units is not None:
            return self.units.text
        if self.argv is not None:
            return formatting.shell_line(self.argv)
        return self.shell_command or ""


def run_all(context: BoxContext, command: Command, run: Run, box: Box) -> Receipt:
    """Run the job, again after each preemption of its box; return the receipt."""
    attempt = 1
    while True:
        run = record_attempt(context, command, run, box)
        run, job_receipt = _run_attempt(context, command, run, box, attempt)
        if job_receipt is not None:
            return job_receipt
        box, attempt = preemption_recovery.next_box(context, run, box, attempt)
        attempts = context.settings.limits.retries + 1
        context.screen.note(f"attempt {attempt} of {attempts}")


def record_attempt(context: BoxContext, command: Command, run: Run, box: Box) -> Run:
    """Record an attempt before it starts, so that a crash cannot lose its job."""
    job_id = job_ids.new(context)
    context.chain.started_jobs += 1
    context.chain.job_state = "starting"
    is_default = context.outputs_folder == context.default_outputs_folder
    context.store.update(
        job=job_id,
        job_outputs="\n".join(configured_outputs(context)),
        job_command=command.text,
        job_started=time.time(),
        fetched="",
        fetched_folder="",
        job_outputs_folder="" if is_default else context.outputs_folder_for_record,
    )
    return run_record.write(context, run.with_attempt(job_id, box))


def start(context: BoxContext, command: Command, run: Run, box: Box) -> None:
    """
    Start the job of the attempt that `record_attempt` has recorded.

    If the box refuses to start the job, the attempt is removed from the run.
    """
    units = None
    if command.units is not None:
        # The fetch finds the units in this file, also that of a later command.
        files = context.chain.pushed_digest
        job = unit_job.begun(context, command.units, run.id, files)
        unit_job.save(context, run.job, job)
        units = job.request(context.settings.map)
    try:
        engine_id = remote_job.start(
            context,
            box,
            job_id=run.job,
            argv=command.argv,
            shell_command=command.shell_command,
            units=units,
            env=job_environment.variables(context),
            secrets=command.secrets,
            outputs=output_roots(context),
        )
    except (Busy, AgentError):
        run_record.withdraw(context, run)
        unit_job.forget(context, run.job)
        context.chain.job_state = ""
        raise
    context.chain.job_state = "started"
    if engine_id:
        engine = context.provider.name.capitalize()
        context.screen.note(f"in {engine} it is job {engine_id}")
    job_facts.note_start(context, box)


def _run_attempt(
    context: BoxContext, command: Command, run: Run, box: Box, attempt: int
) -> tuple[Run, Receipt | None]:
    """
    Run the job once and fetch its outputs.

    Returns:
        The run with its new state, and the job's receipt. The receipt is None if the
        cloud preempted the box and the job has to be restarted.

    Raises:
        JobFailed: The job's own exit code is not 0.

        Preempted: The cloud preempted the box, and the job is not restarted.
    """
    began = time.time()
    try:
        with context.chain.timed("run"):
            ports.warn_of_taken(context)
            start(context, command, run, box)
            record = watch(context, box, run.job, run=run.id, attempt=attempt)
    except (Lost, Preempted) as error:
        if not preemption.preemption_reason(context, box):
            raise
        run = run_record.write(context, run.with_end(time.time() - began, ended=False))
        refusal = preemption_recovery.why_not_restarted(context, run, box, attempt)
        if refusal:
            raise preemption_recovery.given_up_error(
                context, run, box, refusal
            ) from error
        return run, None
    ended_by_itself = preemption.ended_by_itself(context, box, record)
    run = run_record.write(context, run.with_end(record.seconds, ended=ended_by_itself))
    job_receipt = _make_receipt(context, command, run, box, record)
    refusal = preemption_recovery.why_not_restarted(context, run, box, attempt)
    if not ended_by_itself:
        if refusal:
            _fetch_before_preemption(context, run, box, job_receipt)
            raise preemption_recovery.given_up_error(context, run, box, refusal)
        return run, None
    try:
        return run, _finish(context, run, job_receipt, record)
    except (Lost, Preempted):
        # The job had ended, but its box was lost before the outputs were fetched. The
        # job is restarted if it had succeeded, the cloud has preempted the box, and a
        # restart is allowed.
        preempted = preemption.preemption_reason(context, box, ended=True)
        if refusal or record.code or not preempted:
            raise
    run = run_record.write(context, run.with_end(record.seconds, ended=False))
    return run, None


def _make_receipt(
    context: BoxContext, command: Command, run: Run, box: Box, record: ExitRecord
) -> Receipt:
    succeeded = record.cause == "exit" and not record.code
    key = None
    if command.configured and succeeded and context.chain.pushed_digest:
        # The key has the digest of the files that were pushed, because the local files
        # may have been edited since the push.
        key = result_inputs(context, context.chain.pushed_digest, box.image)
    return receipt.make(
        context,
        box,
        run.job,
        command.text,
        record,
        attempts=run_record.account(run, box),
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
        raise JobFailed(written.exit, run.job)
    without = context.chain.units_without_result
    if context.chain.units is not None and without:
        # A unit may have changed the results of others after its job had looked.
        units = formatting.count(without, "unit")
        context.screen.warn(f"the job has exited with 0, but {units} did not get done")
        raise JobFailed(1, run.job)
    return written


def _fetch_before_preemption(
    context: BoxContext, run: Run, box: Box, draft: Receipt
) -> None:
    """
    Fetch from a box that the cloud is about to stop, and write the job's receipt.

    If the box stops during the fetch, a note says that not all outputs were fetched.
    """
    context.chain.receipt = draft
    try:
        fetch_preempted.pull_last_checkpoints(context, run, box)
        if not context.invocation.only:
            fetched = fetch.perform(context, caller="run")
            draft = replace(draft, outputs=OutputCount(fetched.files, fetched.bytes))
    except (Lost, Preempted):
        context.screen.note(f"{box.id} was gone before all outputs were fetched")
    finally:
        context.chain.receipt = receipt.write(context, draft)


def result_inputs(context: BoxContext, files: str, image_id: str) -> dict[str, str]:
    """
    Return the inputs on which a job's result depends.

    Each key names an input for messages, for example "code or data". Its value is a
    hash, an id or a name that changes when the input changes.

    Args:
        files: The digest of code and data.

        image_id: The id of the image that the box boots from, "" for the base image.
    """
    settings = context.settings
    base = settings.image.use or settings.image.base
    run = json.dumps([settings.run.command, dict(settings.run.env)], sort_keys=True)
    return {
        "command": hashlib.sha256(run.encode()).hexdigest()[:16],
        "code or data": files,
        "image": image_id or base,
    }
