"""Decide whether the job runs; `run_attempts` then runs it."""

from __future__ import annotations

import os
import re
import shlex
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.boxes import bring_up
from onebox.errors import ConfigError, InputError, UsageError
from onebox.jobs import job_environment, notify, receipt
from onebox.jobs.receipt import Receipt
from onebox.providers.values import Box
from onebox.remote.job_answers import JobStatus
from onebox.settings.quoting import show
from onebox.settings.toml_file import FILE
from onebox.stages import (
    environment,
    fetch,
    image,
    job_script,
    preemption_recovery,
    push,
    queue,
    run_attempts,
)
from onebox.transfer import verify_outputs

if TYPE_CHECKING:
    from onebox.context import BoxContext

_SHELL_SYNTAX = re.compile(r"[\s;&|<>()$`\"'*?]")


# The reason if a job runs whether something has changed or not.
ALWAYS = '[run] when = "always"'
# What a plan says of a job that is skipped.
UP_TO_DATE = "command, code, data and image unchanged"


def reason(context: BoxContext) -> str | None:
    """Return why the job has to run; None if `when = "changed"` lets it be skipped."""
    if context.settings.run.when != "changed":
        return ALWAYS
    last_receipt = receipt.last_good(context)
    if last_receipt is None:
        return "it has not succeeded yet"
    box = context.find_box()
    if box is not None and environment.outdated_image(context, box):
        # The push updates the packages. Their list is a part of the code.
        image_id = box.image
    else:
        image_reason = image.reason(context)
        if image_reason:
            return f"image: {image_reason}"
        boot_image = image.find(context)
        image_id = boot_image.id if boot_image else ""
    current = run_attempts.result_inputs(context, push.digest(context), image_id)
    before = last_receipt.key or {}
    changed = [name for name, value in current.items() if before.get(name) != value]
    if changed:
        return f"{formatting.first_names(changed)} changed"
    missing = verify_outputs.changed_here(context.outputs_folder, context.fetch_memory)
    return f"outputs have changed since the fetch: {missing}" if missing else None


def check(context: BoxContext) -> None:
    """Raise OneboxError if this machine can tell that the job will not start."""
    if not context.invocation.own_command:
        configured_command(context)
    job_environment.secret_values(context)


def check_command(
    context: BoxContext, words: Sequence[str], line: str, task: str
) -> None:
    """
    Raise UsageError if a typed command is empty, or a line for a shell in one word.

    It is raised too if Python code has given a command that no program can receive.

    A command of words is run without a shell. So one word such as "cd a && b" would be
    taken as the name of a program, unless there is a file of this name.

    Args:
        words: The command as words, empty if there is none.

        line: The command as a line for a shell, "" if there is none.

        task: The task that would run the command: "run", "exec" or "plan".
    """
    if (words and not words[0].strip()) or (line and not line.strip()):
        raise UsageError("the command is empty", next=f"inv {task} -- python job.py")
    for text in (*words, line):
        _check_text(text)
    if task == "plan" or not words or not _SHELL_SYNTAX.search(words[0]):
        return
    line, *flags = words
    if any((folder / line).exists() for folder in (Path(), context.root)):
        return
    if not all(flag.startswith("--") for flag in flags):
        return
    quoted, typed = shlex.quote(line), [shlex.quote(flag) for flag in flags]
    if task == "exec":
        meant = ["inv exec", *typed, f"-- bash -c {quoted}"]
    else:
        meant = [f"inv {task} --command={quoted}", *typed]
    raise UsageError(
        f"{show(line)} is one word, but not the name of a program",
        next=" ".join(meant),
    )


def _check_text(text: str) -> None:
    """Raise UsageError if a part of a command cannot be an argument of a program."""
    if "\0" in text:
        raise UsageError(f"the command contains a NUL byte: {show(text)}")
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        raise UsageError(
            f"the command contains a character that cannot be encoded: {show(text)}"
        ) from None


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
        The receipt. If the job does not run because nothing has changed, it is that of
        the last good job. None if the job is detached, or the user declines to run it.

    Raises:
        JobFailed: The job's own exit code is not 0. Log and outputs are fetched.

        Preempted: The cloud preempted the box, and the job is not restarted.
    """
    context.chain.units = None
    configured = argv is None and shell_command is None
    if configured and reason(context) is None:
        context.screen.print_stage("run", "done", "up to date", UP_TO_DATE)
        return receipt.last_good(context)
    if context.invocation.queue:
        queue.wait_for_turn(context)
    context.lock()
    queue.note_changed_files(context)
    box = bring_up.wait_until_reachable(context)
    if argv is None:
        shell_command = shell_command or configured_command(context)
    command = run_attempts.Command(
        argv, shell_command, job_environment.secret_values(context), configured
    )
    return run_command(context, command, box, detach=detach, yes=yes)


def run_command(
    context: BoxContext,
    command: run_attempts.Command,
    box: Box,
    *,
    detach: bool,
    yes: bool,
) -> Receipt | None:
    """
    Run a command, or units, on a box; `perform` has the details.
    """
    unfetched_job = _unfetched_job(context, command.text)
    last_job = fetch.fetch_previous(context, box, only=context.invocation.only)
    # A run that waited was queued while that job ran, so the user has decided already.
    decided = yes or bool(context.chain.turn_came)
    succeeded = _has_succeeded(last_job, unfetched_job) and command.units is None
    if succeeded and not _confirm_rerun(context, unfetched_job, decided):
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
        without, first = f"{FILE} has no [run] command", f"set [run] command in {FILE}"
        if context.settings.map.command:
            first = "inv map runs the units of [map]; for a job of its own " + first
        if not (context.root / FILE).exists():
            without, first = f"there is no {FILE} in {context.root}", "inv init"
        raise ConfigError(
            f"there is nothing to run: {without}",
            next=f"{first}, or inv run -- python job.py",
        )
    return command


def check_script(context: BoxContext) -> None:
    """
    Refuse a new box for a command that cannot start on it.

    Nothing is refused if the image could contain what is missing.

    Raises:
        InputError: The command starts a script that does not exist or is not pushed,
            or a file of the project that is no program.
    """
    found = _problem(context)
    if found is None or _image_source(context):
        return
    units, table = context.chain.units, context.chain.task
    typed = bool(context.invocation.own_command)
    if units is not None:
        # Not every unit needs to have the script of the first one.
        found, typed = replace(found, meant=""), units.is_typed
    if typed:
        meant = found.meant and f"inv run -- {found.meant}"
        problem = found.problem
        if found.missing:
            problem += ", so a new box would lack it"
        correction = "correct the command"
    else:
        meant = found.meant and f"[run] command = {show(found.meant)}"
        source = context.settings.source(f"{table}.command")
        problem = f"{source}: [{table}] command: {found.problem}"
        correction = f"correct [{table}] command"
    raise InputError(
        problem, next=", or ".join(filter(None, [meant, found.other])) or correction
    )


def describe_missing_script(context: BoxContext) -> str:
    """Return a warning that the image has to contain the script, "" if it has not."""
    found, source = _problem(context), _image_source(context)
    if found is None or not found.missing or not source:
        return ""
    problem = found.problem
    if not (context.root / found.missing).exists():
        problem = f"{formatting.path(found.missing)} is not in the project"
    return f"{problem}; if {source}, the job fails"


def _problem(context: BoxContext) -> job_script.Unstartable | None:
    """Return why the command cannot start with the project's files alone."""
    command = context.invocation.own_command or context.settings.run.command or ""
    if context.chain.units is not None:
        command = context.chain.units.first_line
    return job_script.find_problem(context, command)


def _image_source(context: BoxContext) -> str:
    """Return, as the end of an if clause, what may not have created a script."""
    image_table = context.settings.image
    if image_table.use:
        return f"the image {formatting.path(image_table.use)} does not contain it"
    creator = image_table.setup or image_table.packer
    return f"{formatting.path(creator)} does not create it" if creator else ""


def is_rerun(context: BoxContext, last_job: JobStatus | None, command: str) -> bool:
    """Return whether `run` asks because the last job has succeeded with *command*."""
    return _has_succeeded(last_job, _unfetched_job(context, command))


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
    task = context.chain.task
    screen.print_stage(task, "done", "up to date", f"job {job_id} has succeeded")
    return False


def _print_detached(context: BoxContext, box: Box, job_id: str) -> None:
    idle = context.settings.limits.idle_minutes
    task = context.chain.task
    context.screen.print_stage(task, "done", "started", f"job {job_id}, detached")
    context.screen.note("follow it: inv logs     stop it: inv cancel")
    context.screen.note("then:      inv fetch teardown")
    if box.offer.spot and context.settings.limits.retries:
        context.screen.note(
            "a detached job is not restarted if the provider takes the box back: "
            f"inv {task} restarts it"
        )
    if not box.deadline:
        return
    context.screen.note(
        f"the box powers itself off {idle:g} min after the job ends, and "
        f"{formatting.when(box.deadline, time.time())} at the latest; its disk is kept"
    )
