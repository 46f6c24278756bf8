"""Decide whether the job runs; `run_attempts` then runs it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.boxes import bring_up
from onebox.errors import ConfigError, UsageError
from onebox.jobs import notify, receipt
from onebox.jobs.receipt import Receipt
from onebox.providers.values import Box
from onebox.remote.answers import JobStatus
from onebox.stages import fetch, image, preemption_recovery, push, run_attempts
from onebox.transfer import fetch_outputs

if TYPE_CHECKING:
    from onebox.context import BoxContext


def reason(context: BoxContext) -> str | None:
    """Return why the job has to run; None if `when = "changed"` lets it be skipped."""
    if context.settings.run.when != "changed":
        return "a job always runs"
    last_receipt = receipt.last_good(context)
    if last_receipt is None:
        return "it has not succeeded yet"
    image_reason = image.reason(context)
    if image_reason:
        return f"image: {image_reason}"
    boot_image = image.find(context)
    current = run_attempts.result_inputs(
        context, push.digest(context), boot_image.id if boot_image else ""
    )
    before = last_receipt.key or {}
    changed = [name for name, value in current.items() if before.get(name) != value]
    if changed:
        return f"{formatting.first_names(changed)} changed"
    missing = fetch_outputs.changed_here(context.outputs_folder, context.fetch_memory)
    return f"outputs have changed since the fetch: {missing}" if missing else None


def check(context: BoxContext) -> None:
    """Raise OneboxError if this machine can tell that the job will not start."""
    if not context.invocation.own_command:
        configured_command(context)
    secret_values(context)


def perform(
    context: BoxContext,
    argv: Sequence[str] | None,
    *,
    shell_command: str | None = None,
    detach: bool = False,
    yes: bool = False,
) -> Receipt | None:
    """
    Run the job and fetch its outputs.

    If the same command has already succeeded on this box and its outputs were not
    fetched, they are fetched first. Then the user is asked whether the command runs
    again. Without a terminal, the command runs again without a question.

    If the cloud preempts a spot box, the job is restarted on another box, from its
    last checkpoints.

    Args:
        argv: The command as words.

        shell_command: The command for a shell, used if *argv* is None. If both are
            None, the command that `[run] command` in onebox.toml gives runs.

        detach: Return once the job has started.

        yes: Run a finished command again without asking.

    Returns:
        The receipt, None if the job is detached or does not run.

    Raises:
        JobFailed: The job's own exit code is not 0. Log and outputs are fetched.

        Preempted: The cloud preempted the box, and the job is not restarted.
    """
    configured = argv is None and shell_command is None
    if configured and reason(context) is None:
        context.screen.print_stage(
            "run", "done", "up to date", "command, code, data and image unchanged"
        )
        return None
    context.lock()
    box = bring_up.wait_until_reachable(context)
    if argv is None:
        shell_command = shell_command or configured_command(context)
    command = run_attempts.Command(
        argv, shell_command, secret_values(context), configured
    )
    unfetched_job = _unfetched_job(context, command.text)
    last_job = fetch.fetch_previous(context, box, only=context.invocation.only)
    if _has_succeeded(last_job, unfetched_job) and not _confirm_rerun(
        context, unfetched_job, yes
    ):
        return None
    run, on_new_box = preemption_recovery.resume_or_begin(
        context, command.text, last_job
    )
    if on_new_box:
        context.screen.note(f"resuming the run of job {run.id}")
        preemption_recovery.restore(context, run, box)
    if detach:
        with context.chain.timed("run"):
            run = run_attempts.record_attempt(context, command, run, box)
            run_attempts.start(context, command, run, box)
        context.invocation.keep = context.invocation.detached = True
        _print_detached(context, box, run.job)
        return None
    with notify.at_end(context):
        return run_attempts.run_all(context, command, run, box)


def configured_command(context: BoxContext) -> str:
    """
    Return the command that `[run] command` in onebox.toml gives.

    Raises:
        ConfigError: onebox.toml gives no command.
    """
    command = context.settings.run.command
    if not command:
        raise ConfigError(
            "there is nothing to run: onebox.toml has no [run] command",
            next="inv run -- python job.py, or inv init",
        )
    return command


def secret_values(context: BoxContext) -> dict[str, str]:
    """
    Return the values of the variables that `[run] secrets` names, by name.

    Raises:
        UsageError: One of the variables is not set.
    """
    names = context.settings.run.secrets
    missing = [name for name in names if name not in context.environ]
    if missing:
        raise UsageError(
            f"[run] secrets: {formatting.first_names(missing)} is not in the "
            "environment",
            next=f"export {missing[0]}=…",
        )
    return {name: context.environ[name] for name in names}


def _unfetched_job(context: BoxContext, command: str) -> str:
    """
    Return the id of the last job if it ran *command* and its outputs are not fetched.

    Otherwise the result is "".
    """
    record = context.store.record
    same = record.job_command == command
    # Outputs that the push of this command line has just fetched count as not fetched,
    # so that the user is still asked whether the command runs again.
    unfetched = not record.fetched or context.chain.fetched_earlier_job == record.job
    return record.job if same and unfetched else ""


def _has_succeeded(last_job: JobStatus | None, job_id: str) -> bool:
    """Return whether the last job is *job_id* and has exited with 0."""
    if last_job is None or last_job.job != job_id or last_job.record is None:
        return False
    return (last_job.record.cause, last_job.record.code) == ("exit", 0)


def _confirm_rerun(context: BoxContext, job_id: str, yes: bool) -> bool:
    """
    Ask the user whether to run a command again that has succeeded; return the answer.

    If *yes* is set or there is no terminal, the user is not asked and the result is
    True.
    """
    screen = context.screen
    ended = f"job {job_id} has succeeded; its outputs are fetched now"
    if yes or not screen.can_ask:
        screen.note(f"{ended}; the same command runs again")
        return True
    if screen.ask(f"{ended}. Type yes to run the same command again:", "yes"):
        return True
    screen.print_stage("run", "done", "up to date", f"job {job_id} has succeeded")
    return False


def _print_detached(context: BoxContext, box: Box, job_id: str) -> None:
    idle = context.settings.limits.idle_minutes
    context.screen.print_stage("run", "done", "started", f"job {job_id}, detached")
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
