"""Run the job on the box, with its output here and its exit code as ours."""

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
from onebox.jobs.output_paths import asked_for, roots
from onebox.jobs.receipt import OutputCount, Receipt
from onebox.jobs.run_history import Run
from onebox.providers.base import Box
from onebox.remote.answers import ExitRecord
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


# Python keeps what it prints back until a few kilobytes are together: then the
# live output would come in lumps. `env = { PYTHONUNBUFFERED = "" }` undoes it.
LIVE = {"PYTHONUNBUFFERED": "1"}


def reason(context: BoxContext) -> str | None:
    """Say why the job has to run, or None: only `when = "changed"` can skip it."""
    if context.settings.run.when != "changed":
        return "a job always runs"
    good = receipt.last_good(context)
    if good is None:
        return "it has not run to its end yet"
    unbuilt = image.reason(context)
    if unbuilt:
        return f"image: {unbuilt}"
    found = image.wanted(context)
    now = _key(context, push.digest(context), found.id if found else "")
    before = good.key or {}
    changed = [part for part, value in now.items() if before.get(part) != value]
    if changed:
        return f"{formatting.some(changed)} changed"
    missing = fetch_outputs.changed_here(context.into, context.memory)
    return f"outputs are not as they were fetched: {missing}" if missing else None


def perform(
    context: BoxContext,
    argv: Sequence[str] | None,
    *,
    line: str | None = None,
    detach: bool = False,
    yes: bool = False,
) -> Receipt | None:
    """
    Run the job and bring its outputs home; return the receipt.

    A job that has ended well on this box, with outputs that are not here, is
    fetched first; then it runs again, unless somebody is asked and says no.

    When the cloud takes a spot box, another one is made and the job runs again
    there, from its last checkpoints.

    Args:
        argv: The command as words.

        line: The command as a shell line; without either it is [run] command.

        detach: Return once the job has started.

        yes: Do not ask whether a finished job is to run again.

    Raises:
        JobFailed: The job's own exit code is not 0. Log and outputs are here.

        Preempted: The cloud took the box during the job, as often as it may.
    """
    usual = argv is None and line is None
    if usual and reason(context) is None:
        context.screen.line(
            "run", "done", "up to date", "command, code, data and image unchanged"
        )
        return None
    context.lock()
    box = bring_up.ready(context)
    shell = (line or command_line(context)) if argv is None else None
    work = _Work(argv, shell, secret_values(context), usual)
    finished = _finished(context, work.command)
    before = previous_outputs.fetch_outputs(context, box, only=context.line.only)
    record = before.record if before is not None and before.job == finished else None
    well = record is not None and (record.cause, record.code) == ("exit", 0)
    if well and not _again(context, finished, yes):
        return None
    run, anew = preemption_recovery.begin(context, work.command, before)
    if anew:
        context.screen.note(f"going on with the run of job {run.id}")
        preemption_recovery.restore(context, run, box)
    if detach:
        with context.timed("run"):
            job_id = _start(context, work, _begin(context, work, run, box), box)
        context.line.keep = context.line.detached = True
        _say_detached(context, box, job_id)
        return None
    tries = 1
    while True:
        run = _begin(context, work, run, box)
        run, done = _attempt(context, work, run, box, tries)
        if done is not None:
            return done
        box, tries = preemption_recovery.next_box(context, run, box, tries)
        context.screen.note(f"attempt {tries} of {context.settings.limits.retries + 1}")


def check(context: BoxContext) -> None:
    """Raise OneboxError if it can be seen from here that the job cannot start."""
    if not context.line.own_command:
        command_line(context)
    secret_values(context)


@dataclass(frozen=True)
class _Work:
    """What is to run: words, or a line of shell; *usual* if it is [run] command."""

    argv: Sequence[str] | None
    line: str | None
    secrets: Mapping[str, str] = field(repr=False)
    usual: bool

    @property
    def command(self) -> str:
        """Return it as a line that a shell would take."""
        return self.line if self.line is not None else shlex.join(self.argv or ())


def _begin(context: BoxContext, work: _Work, run: Run, box: Box) -> Run:
    """Write down, before it starts, that there is another attempt."""
    job_id = time.strftime("%Y%m%d-%H%M%S-") + randomness.token_hex(2)
    context.begun += 1
    context.job_state = "starting"
    context.remember(
        job=job_id,
        job_outputs="\n".join(asked_for(context)),
        job_command=work.command,
        job_started=time.time(),
        fetched="",
        into="",
        job_into=""
        if context.into == context.usual_into
        else context.noted(context.into),
        discarded=False,
    )
    return run_history.write(context, run.begun(job_id, box))


def _start(context: BoxContext, work: _Work, run: Run, box: Box) -> str:
    """Start the attempt that has been written down; return its job."""
    try:
        client.start(
            context,
            box,
            job_id=run.job,
            argv=work.argv,
            line=work.line,
            env={**LIVE, **context.settings.run.env},
            secrets=work.secrets,
            outputs=[path for path in roots(context) if path.endswith("/")],
        )
    except (UsageError, AgentError):
        run_history.withdraw(context, run)
        context.job_state = ""
        raise
    context.job_state = "started"
    return run.job


def _attempt(
    context: BoxContext, work: _Work, run: Run, box: Box, tries: int
) -> tuple[Run, Receipt | None]:
    """
    Run the job once, to its end if its box lives so long; bring home what it left.

    Returns the receipt, or None if the cloud has taken the box and the job is to
    run again.
    """
    began = time.time()
    try:
        with context.timed("run"):
            _start(context, work, run, box)
            record = watch(context, box, run.job, run=run.id, attempt=tries)
    except (Lost, Preempted) as error:
        if not preemption.taken(context, box):
            raise
        run = run_history.write(context, run.over(time.time() - began, ended=False))
        why = preemption_recovery.refusal(context, run, box, tries)
        if why:
            raise preemption_recovery.given_up(context, run, box, why) from error
        return run, None
    lasted = record.seconds
    by_itself = preemption.by_itself(context, box, record)
    run = run_history.write(context, run.over(lasted, ended=by_itself))
    # What was pushed, not what is here now: it may have been edited meanwhile.
    whole = record.cause == "exit" and not record.code
    key = None
    if work.usual and whole and context.pushed:
        key = _key(context, context.pushed, box.image)
    draft = receipt.make(
        context,
        box,
        run.job,
        work.command,
        record,
        attempts=run_history.account(run, box),
        key=key,
    )
    why = preemption_recovery.refusal(context, run, box, tries)
    if by_itself:
        try:
            return run, _bring_home(context, run, draft, record)
        except (Lost, Preempted):
            # Taken with its outputs on it. A job that failed stays one that did.
            gone = preemption.taken(context, box, ended=True)
            if why or record.code or not gone:
                raise
        return run_history.write(context, run.over(lasted, ended=False)), None
    if why:
        _bring_what_there_is(context, run, box, draft)
        raise preemption_recovery.given_up(context, run, box, why)
    return run, None


def _bring_home(
    context: BoxContext, run: Run, draft: Receipt, ended: ExitRecord
) -> Receipt:
    """Fetch a finished job's outputs, write its receipt, pass on its exit code."""
    context.chain.receipt = draft
    try:
        if not context.line.only:
            done = fetch.perform(context, started_by="run", ended=ended)
            draft = replace(draft, outputs=OutputCount(done.files, done.bytes))
    finally:
        written = context.chain.receipt = receipt.write(context, draft)
    preemption_recovery.clear(context, run)
    if written.exit:
        raise JobFailed(written.exit)
    return written


def command_line(context: BoxContext) -> str:
    """Return [run] command. Raises ConfigError if there is none."""
    command = context.settings.run.command
    if not command:
        raise ConfigError(
            "there is nothing to run: onebox.toml has no [run] command",
            next="inv run -- python job.py, or inv init",
        )
    return command


def secret_values(context: BoxContext) -> dict[str, str]:
    """Return the secrets' values. Raises UsageError if one is not set."""
    missing = [n for n in context.settings.run.secrets if n not in context.environ]
    if missing:
        raise UsageError(
            f"[run] secrets: {formatting.some(missing)} is not in the environment",
            next=f"export {missing[0]}=…",
        )
    return {name: context.environ[name] for name in context.settings.run.secrets}


def _bring_what_there_is(
    context: BoxContext, run: Run, box: Box, draft: Receipt
) -> None:
    """Fetch from a box in its last minutes: it may go in the middle of it."""
    context.chain.receipt = draft
    try:
        salvage.last_pull(context, run, box)
        if not context.line.only:
            done = fetch.perform(context, started_by="run")
            draft = replace(draft, outputs=OutputCount(done.files, done.bytes))
    except (Lost, Preempted):
        context.screen.note(f"{box.id} went before all of it was here")
    finally:
        context.chain.receipt = receipt.write(context, draft)


def _finished(context: BoxContext, command: str) -> str:
    """Return the job of this command whose outputs were not here, "" if none."""
    record = context.store.record
    same = record.job_command == command and not record.discarded
    # The push before this may have fetched them.
    missed = not record.fetched or context.fetched_earlier == record.job
    return record.job if same and missed else ""


def _again(context: BoxContext, job_id: str, yes: bool) -> bool:
    """Say that a finished job runs again; where somebody can answer, ask."""
    screen = context.screen
    ended = f"job {job_id} has ended well; its outputs are here now"
    if yes or not screen.can_ask:
        screen.note(f"{ended}; the same command runs again")
        return True
    if screen.ask(f"{ended}. Type yes to run the same command again:", "yes"):
        return True
    screen.line("run", "done", "up to date", f"job {job_id} has ended well")
    return False


def _say_detached(context: BoxContext, box: Box, job_id: str) -> None:
    idle = context.settings.limits.idle_minutes
    context.screen.line("run", "done", "started", f"job {job_id}, detached")
    context.screen.note("come back: inv logs     stop it: inv cancel")
    context.screen.note("then:      inv fetch teardown")
    if box.offer.spot and context.settings.limits.retries:
        context.screen.note(
            "should the provider take the box back, nobody is there to start the job "
            "again: inv run does"
        )
    context.screen.note(
        f"the box powers itself off {idle:g} min after the job has ended, at "
        f"{formatting.clock(box.deadline, time.time())} at the latest; its disk is kept"
    )


def _key(context: BoxContext, files: str, made_from: str) -> dict[str, str]:
    """
    Return what a job's result depends on: the same key, the same result.

    *files* is the digest of code and data, *made_from* the box's image.
    """
    settings = context.settings
    base = settings.image.use or settings.image.base
    run = json.dumps([settings.run.command, dict(settings.run.env)], sort_keys=True)
    return {
        "command": hashlib.sha256(run.encode()).hexdigest()[:16],
        "code or data": files,
        "image": made_from or base,
    }
