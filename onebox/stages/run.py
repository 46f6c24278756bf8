"""Run the job on the box, with its output here and its exit code as ours."""

from __future__ import annotations

import hashlib
import json
import secrets as randomness
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from onebox import formatting
from onebox.boxes import bring_up
from onebox.errors import ConfigError, JobFailed, Lost, Preempted, UsageError
from onebox.jobs import client, receipt, run_history
from onebox.jobs.follow import watch
from onebox.jobs.output_paths import asked_for, roots
from onebox.jobs.run_history import Run
from onebox.providers.base import Box
from onebox.remote.answers import ExitRecord
from onebox.remote.channel import AgentError
from onebox.jobs import preemption
from onebox.stages import fetch, image, preemption_recovery, previous_outputs, push, salvage
from onebox.transfer import fetch_outputs

if TYPE_CHECKING:
    from onebox.context import Session


# Python keeps what it prints back until a few kilobytes are together: then the
# live output would come in lumps. `env = { PYTHONUNBUFFERED = "" }` undoes it.
LIVE = {"PYTHONUNBUFFERED": "1"}


def reason(session: Session) -> str | None:
    """Say why the job has to run, or None: only `when = "changed"` can skip it."""
    if session.settings.run.when != "changed":
        return "a job always runs"
    paper = receipt.last_good(session)
    if paper is None:
        return "it has not run to its end yet"
    unbuilt = image.reason(session)
    if unbuilt:
        return f"image: {unbuilt}"
    found = image.wanted(session)
    now = _key(session, push.digest(session), found.id if found else "")
    before = paper["key"]
    changed = [part for part, value in now.items() if before.get(part) != value]
    if changed:
        return f"{formatting.some(changed)} changed"
    missing = fetch_outputs.changed_here(session.into, session.memory)
    return f"outputs are not as they were fetched: {missing}" if missing else None


def perform(
    session: Session,
    argv: Sequence[str] | None,
    *,
    line: str | None = None,
    detach: bool = False,
    yes: bool = False,
) -> dict[str, Any] | None:
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
    if usual and reason(session) is None:
        session.screen.line(
            "run", "done", "up to date", "command, code, data and image unchanged"
        )
        return None
    session.lock()
    box = bring_up.ready(session)
    shell = (line or command_line(session)) if argv is None else None
    work = _Work(argv, shell, secret_values(session), usual)
    finished = _finished(session, work.command)
    before = previous_outputs.fetch_outputs(session, box, only=session.line.only)
    record = before.record if before is not None and before.job == finished else None
    well = record is not None and (record.cause, record.code) == ("exit", 0)
    if well and not _again(session, finished, yes):
        return None
    run, anew = preemption_recovery.begin(session, work.command, before)
    if anew:
        session.screen.note(f"going on with the run of job {run.id}")
        preemption_recovery.restore(session, run, box)
    if detach:
        with session.timed("run"):
            job_id = _start(session, work, _begin(session, work, run, box), box)
        session.line.keep = session.line.detached = True
        _say_detached(session, box, job_id)
        return None
    tries = 1
    while True:
        run = _begin(session, work, run, box)
        run, paper = _attempt(session, work, run, box, tries)
        if paper is not None:
            return paper
        box, tries = preemption_recovery.next_box(session, run, box, tries)
        session.screen.note(f"attempt {tries} of {session.settings.limits.retries + 1}")


def check(session: Session) -> None:
    """Raise OneboxError if it can be seen from here that the job cannot start."""
    if not session.line.own_command:
        command_line(session)
    secret_values(session)


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


def _begin(session: Session, work: _Work, run: Run, box: Box) -> Run:
    """Write down, before it starts, that there is another attempt."""
    job_id = time.strftime("%Y%m%d-%H%M%S-") + randomness.token_hex(2)
    session.begun += 1
    session.job_state = "starting"
    session.remember(
        job=job_id,
        job_outputs="\n".join(asked_for(session)),
        job_command=work.command,
        job_started=time.time(),
        fetched="",
        into="",
        job_into=""
        if session.into == session.usual_into
        else session.noted(session.into),
        discarded=False,
    )
    return run_history.write(session, run.begun(job_id, box))


def _start(session: Session, work: _Work, run: Run, box: Box) -> str:
    """Start the attempt that has been written down; return its job."""
    try:
        client.start(
            session,
            box,
            job_id=run.job,
            argv=work.argv,
            line=work.line,
            env={**LIVE, **session.settings.run.env},
            secrets=work.secrets,
            outputs=[path for path in roots(session) if path.endswith("/")],
        )
    except (UsageError, AgentError):
        run_history.withdraw(session, run)
        session.job_state = ""
        raise
    session.job_state = "started"
    return run.job


def _attempt(
    session: Session, work: _Work, run: Run, box: Box, tries: int
) -> tuple[Run, dict[str, Any] | None]:
    """
    Run the job once, to its end if its box lives so long; bring home what it left.

    Returns the receipt, or None if the cloud has taken the box and the job is to
    run again.
    """
    began = time.time()
    try:
        with session.timed("run"):
            _start(session, work, run, box)
            record = watch(session, box, run.job, run=run.id, attempt=tries)
    except (Lost, Preempted) as error:
        if not preemption.taken(session, box):
            raise
        run = run_history.write(session, run.over(time.time() - began, ended=False))
        why = preemption_recovery.refusal(session, run, box, tries)
        if why:
            raise preemption_recovery.given_up(session, run, box, why) from error
        return run, None
    lasted = record.seconds
    by_itself = preemption.by_itself(session, box, record)
    run = run_history.write(session, run.over(lasted, ended=by_itself))
    paper = receipt.make(session, box, run.job, work.command, record)
    paper["attempts"] = run_history.account(run, box)
    # What was pushed, not what is here now: it may have been edited meanwhile.
    whole = record.cause == "exit" and not record.code
    if work.usual and whole and session.pushed:
        paper["key"] = _key(session, session.pushed, box.image)
    why = preemption_recovery.refusal(session, run, box, tries)
    if by_itself:
        try:
            return run, _bring_home(session, run, paper, record)
        except (Lost, Preempted):
            # Taken with its outputs on it. A job that failed stays one that did.
            gone = preemption.taken(session, box, ended=True)
            if why or record.code or not gone:
                raise
        return run_history.write(session, run.over(lasted, ended=False)), None
    if why:
        _bring_what_there_is(session, run, box, paper)
        raise preemption_recovery.given_up(session, run, box, why)
    return run, None


def _bring_home(
    session: Session, run: Run, paper: dict[str, Any], ended: ExitRecord
) -> dict[str, Any]:
    """Fetch a finished job's outputs, write its receipt, pass on its exit code."""
    session.paper = paper
    try:
        if not session.line.only:
            done = fetch.perform(session, started_by="run", ended=ended)
            paper["outputs"] = {"files": done.files, "bytes": done.bytes}
    finally:
        receipt.write(session, run.job, paper)
    preemption_recovery.clear(session, run)
    if paper["exit"]:
        raise JobFailed(int(paper["exit"]))
    return paper


def command_line(session: Session) -> str:
    """Return [run] command. Raises ConfigError if there is none."""
    command = session.settings.run.command
    if not command:
        raise ConfigError(
            "there is nothing to run: onebox.toml has no [run] command",
            next="inv run -- python job.py, or inv init",
        )
    return command


def secret_values(session: Session) -> dict[str, str]:
    """Return the secrets' values. Raises UsageError if one is not set."""
    missing = [n for n in session.settings.run.secrets if n not in session.environ]
    if missing:
        raise UsageError(
            f"[run] secrets: {formatting.some(missing)} is not in the environment",
            next=f"export {missing[0]}=…",
        )
    return {name: session.environ[name] for name in session.settings.run.secrets}


def _bring_what_there_is(
    session: Session, run: Run, box: Box, paper: dict[str, Any]
) -> None:
    """Fetch from a box in its last minutes: it may go in the middle of it."""
    session.paper = paper
    try:
        salvage.last_pull(session, run, box)
        if not session.line.only:
            done = fetch.perform(session, started_by="run")
            paper["outputs"] = {"files": done.files, "bytes": done.bytes}
    except (Lost, Preempted):
        session.screen.note(f"{box.id} went before all of it was here")
    finally:
        receipt.write(session, run.job, paper)


def _finished(session: Session, command: str) -> str:
    """Return the job of this command whose outputs were not here, "" if none."""
    record = session.notebook.record
    same = record.job_command == command and not record.discarded
    # The push before this may have fetched them.
    missed = not record.fetched or session.fetched_earlier == record.job
    return record.job if same and missed else ""


def _again(session: Session, job_id: str, yes: bool) -> bool:
    """Say that a finished job runs again; where somebody can answer, ask."""
    screen = session.screen
    ended = f"job {job_id} has ended well; its outputs are here now"
    if yes or not screen.can_ask:
        screen.note(f"{ended}; the same command runs again")
        return True
    if screen.ask(f"{ended}. Type yes to run the same command again:", "yes"):
        return True
    screen.line("run", "done", "up to date", f"job {job_id} has ended well")
    return False


def _say_detached(session: Session, box: Box, job_id: str) -> None:
    idle = session.settings.limits.idle_minutes
    session.screen.line("run", "done", "started", f"job {job_id}, detached")
    session.screen.note("come back: inv logs     stop it: inv cancel")
    session.screen.note("then:      inv fetch teardown")
    if box.size.spot and session.settings.limits.retries:
        session.screen.note(
            "should the provider take the box back, nobody is there to start the job "
            "again: inv run does"
        )
    session.screen.note(
        f"the box powers itself off {idle:g} min after the job has ended, at "
        f"{formatting.clock(box.deadline, time.time())} at the latest; its disk is kept"
    )


def _key(session: Session, files: str, made_from: str) -> dict[str, str]:
    """
    Return what a job's result depends on: the same key, the same result.

    *files* is the digest of code and data, *made_from* the box's image.
    """
    settings = session.settings
    base = settings.image.use or settings.image.base
    run = json.dumps([settings.run.command, dict(settings.run.env)], sort_keys=True)
    return {
        "command": hashlib.sha256(run.encode()).hexdigest()[:16],
        "code or data": files,
        "image": made_from or base,
    }
