"""Run the job on the box, with its output here and its exit code as ours."""

from __future__ import annotations

import hashlib
import json
import secrets as randomness
import shlex
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import words
from ..errors import ConfigError, Lost, OneboxError, Preempted, UsageError
from ..providers.base import Box
from ..transport import outputs, sync
from . import attempts, checkpoints, fetch, image, job, push, receipt, recover

if TYPE_CHECKING:
    from ..session import Session


# Python keeps what it prints back until a few kilobytes are together: then the
# live output would come in lumps. `env = { PYTHONUNBUFFERED = "" }` undoes it.
LIVE = {"PYTHONUNBUFFERED": "1"}


class JobFailed(OneboxError):
    """The job ended with a code other than 0: the code is passed on as it is."""

    said = True

    def __init__(self, code: int) -> None:
        super().__init__(f"the job ended with exit {code}")
        self.code = code


def reason(session: Session) -> str | None:
    """Say why the job has to run, or None: only `when = "changed"` can skip it."""
    if session.settings.run.when != "changed":
        return "a job always runs"
    paper = receipt.last_good(session)
    if paper is None:
        return "it has not run to its end yet"
    now, before = _key(session), paper["key"]
    changed = [part for part, value in now.items() if before.get(part) != value]
    if changed:
        return f"{words.some(changed)} changed"
    missing = outputs.changed_here(session.into, session.local_dir)
    return f"outputs are not as they were fetched: {missing}" if missing else None


def perform(
    session: Session,
    argv: Sequence[str] | None,
    *,
    line: str | None = None,
    detach: bool = False,
) -> dict[str, Any] | None:
    """
    Run the job and bring its outputs home; return the receipt.

    When the cloud takes a spot box, another one is made and the job runs again
    there, from its last checkpoints.

    Args:
        argv: The command as words.

        line: The command as a shell line; without either it is [run] command.

        detach: Return once the job has started.

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
    box = session.running_box()
    shell = (line or command_line(session)) if argv is None else None
    values = secret_values(session)
    before = _bring_earlier_outputs(session, box)
    command = shell if shell is not None else shlex.join(argv or ())
    whole, anew = recover.begin(session, command, before)
    if anew:
        session.screen.note(f"going on with the run of job {whole.id}")
        recover.restore(session, whole, box)
    tries = 1
    while True:
        job_id = time.strftime("%Y%m%d-%H%M%S-") + randomness.token_hex(2)
        began = time.time()
        session.remember(
            job=job_id,
            job_command=command,
            job_started=began,
            fetched="",
            into="",
            discarded=False,
        )
        whole = attempts.write(session, whole.begun(job_id, box))
        try:
            with session.timed("run"):
                job.start(
                    session,
                    box,
                    job_id=job_id,
                    argv=argv,
                    line=shell,
                    env={**LIVE, **session.settings.run.env},
                    secrets=values,
                    outputs=[x for x in fetch.roots(session) if x.endswith("/")],
                )
                if detach:
                    session.line.keep = True
                    _say_detached(session, box, job_id)
                    return None
                record = watch(session, box, job_id, run=whole.id, attempt=tries)
        except (Lost, Preempted) as error:
            if not recover.taken(session, box):
                raise
            lasted = time.time() - began
            whole = attempts.write(session, whole.over(lasted, ended=False))
            why = recover.refusal(session, whole, box, tries)
            if why:
                raise recover.given_up(session, whole, box, why) from error
        else:
            lasted = record["ended"] - record["started"]
            by_itself = recover.by_itself(session, box, record)
            whole = attempts.write(session, whole.over(lasted, ended=by_itself))
            paper = receipt.make(session, box, job_id, command, record)
            paper["attempts"] = attempts.account(whole, box)
            if usual and not record["code"]:
                paper["key"] = _key(session)
            why = recover.refusal(session, whole, box, tries)
            if by_itself:
                try:
                    return _bring_home(session, whole, job_id, paper)
                except (Lost, Preempted):
                    # Taken with its outputs on it; a failed job stays a failed one.
                    if why or record["code"] or not recover.taken(session, box):
                        raise
                whole = attempts.write(session, whole.over(lasted, ended=False))
            elif why:
                _bring_what_there_is(session, whole, box, job_id, paper)
                raise recover.given_up(session, whole, box, why)
        box, tries = recover.next_box(session, whole, box, tries)
        session.screen.note(f"attempt {tries} of {session.settings.limits.retries + 1}")


def check(session: Session) -> None:
    """Raise OneboxError if it can be seen from here that the job cannot start."""
    if not session.line.own_command:
        command_line(session)
    secret_values(session)


def watch(
    session: Session, box: Box, job_id: str, *, run: str = "", attempt: int = 1
) -> dict[str, Any]:
    """
    Show a job's output from where the local log ends; return its record.

    Its checkpoints come here meanwhile.

    Args:
        run: The first job of the run that this one is an attempt of.
    """
    screen = session.screen
    # The first moment of the job is the line's; the rest is the job's own.
    began = time.time()
    tried = f"attempt {attempt}" if attempt > 1 else ""
    log = log_path(session, job_id)
    try:
        with checkpoints.coming_home(
            session, box, run=run or job_id, job=job_id
        ) as visitor:

            def sample(now: dict[str, Any]) -> None:
                more = [tried]
                if visitor is not None:
                    visitor.speak()
                    more.append(visitor.footer)
                screen.footer(_footer(session, box, now, began, more))

            record = job.follow(
                session, box, job_id, log, screen.output, sample, screen.output_gone
            )
    except (Lost, Preempted):
        screen.close_line()
        lasted = words.seconds(time.time() - session.notebook.record.job_started)
        if recover.taken(session, box):
            screen.line("run", "failed", lasted, "the provider took the box back")
        else:
            unknown = f"job {job_id}: how it ended is not known"
            screen.line("run", "failed", lasted, unknown)
        raise
    screen.close_line()
    spent = words.seconds(record["ended"] - record["started"])
    mark = "done" if not record["code"] else "failed"
    screen.line("run", mark, spent, describe(record))
    return record


def _bring_home(
    session: Session, run: attempts.Run, job_id: str, paper: dict[str, Any]
) -> dict[str, Any]:
    """Fetch a finished job's outputs, write its receipt, pass on its exit code."""
    session.paper = paper
    try:
        if not session.line.only:
            done = fetch.perform(session, started_by="run")
            paper["outputs"] = {"files": done.files, "bytes": done.bytes}
    finally:
        receipt.write(session, job_id, paper)
    recover.clear(session, run)
    if paper["exit"]:
        raise JobFailed(int(paper["exit"]))
    return paper


def log_path(session: Session, job_id: str) -> Path:
    """Return where a job's log is kept here."""
    return session.local_dir / "jobs" / job_id / "log"


def describe(record: Mapping[str, Any]) -> str:
    """Say how a job ended, in a few words."""
    cause, code = record["cause"], record["code"]
    text = f"exit {code}"
    if cause == "oom":
        text += f", killed: out of memory{_peak(record)}"
    elif cause == "disk-full":
        text += ", the box's disk is full"
    elif cause == "signal":
        text += f", killed by {_name(int(record['signal']))}"
    elif cause == "exit" and 128 < code < 128 + signal.NSIG:
        # A shell says so when a command in it was killed.
        text += f" ({_name(code - 128)})"
    elif cause != "exit":
        text += f", {_CAUSES.get(cause, cause)}"
    left = record.get("survivors") or []
    if left:
        text += f"; ended what it left running: {words.some([str(s) for s in left])}"
    return text


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


_CAUSES = {
    "cancel": "cancelled",
    "preempted": "the provider took the box back",
    "deadline": "the deadline had come",
    "poweroff": "the box was powered off",
}


def _peak(record: Mapping[str, Any]) -> str:
    peak = record.get("memory_peak")
    text = f" at {words.size(peak)}" if peak else ""
    largest = record.get("memory_largest")
    return f"{text} ({words.path(str(largest))})" if largest else text


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
            f"[run] secrets: {words.some(missing)} is not in the environment",
            next=f"export {missing[0]}=…",
        )
    return {name: session.environ[name] for name in session.settings.run.secrets}


def _bring_what_there_is(
    session: Session, run: attempts.Run, box: Box, job_id: str, paper: dict[str, Any]
) -> None:
    """Fetch from a box in its last minutes: it may go in the middle of it."""
    session.paper = paper
    try:
        recover.last_pull(session, run, box)
        if not session.line.only:
            done = fetch.perform(session, started_by="run")
            paper["outputs"] = {"files": done.files, "bytes": done.bytes}
    except (Lost, Preempted):
        session.screen.note(f"{box.id} went before all of it was here")
    finally:
        receipt.write(session, job_id, paper)


def _bring_earlier_outputs(session: Session, box: Box) -> dict[str, Any] | None:
    """
    Have the outputs of the job before here: a new one would write over them.

    Returns what the agent says of that job, None if there was none on this box.
    """
    record = session.notebook.record
    before = job.latest(session)
    if before is None or before["job"].startswith("image-"):
        return None
    if before["state"] == "running":
        raise UsageError(
            f"job {before['job']} still runs on {session.title}",
            next="inv logs follows it, inv cancel stops it",
        )
    if record.fetched or record.discarded or session.line.only:
        return before
    session.screen.note(f"outputs of the earlier job {before['job']} first")
    fetch.perform(session, started_by="run", partial=before["state"] == "lost")
    return before


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
        f"{words.clock(box.deadline, time.time())} at the latest; its disk is kept"
    )


def _footer(
    session: Session,
    box: Box,
    sample: Mapping[str, Any],
    began: float,
    more: Sequence[str] = (),
) -> str:
    started = session.notebook.record.job_started or began
    spent = max(time.time() - started, 0)
    parts = [f"run  {words.seconds(spent)}"]
    if box.size.price:
        parts.append(words.money(box.size.price * spent / 3600))
    if sample.get("cpu") is not None:
        parts.append(f"{sample['cpu']:.1f} of {sample.get('cpus', '?')} cores")
    if sample.get("memory"):
        total = words.size(sample["memory_total"])
        parts.append(f"{words.size(sample['memory'])} of {total}")
    parts += [*more, "Ctrl-C detaches"]
    return "    ".join(part for part in parts if part)


def _key(session: Session) -> dict[str, str]:
    """Return what a job's result depends on: the same key, the same result."""
    settings = session.settings
    paths = push.chosen(session)
    now = image.wanted(session)
    index = session.notebook.directory / "index"
    run = json.dumps([settings.run.command, dict(settings.run.env)], sort_keys=True)
    return {
        "command": hashlib.sha256(run.encode()).hexdigest()[:16],
        "code or data": sync.digest(session.root, paths, index),
        "image": now.id if now else "",
    }
