"""
Turn an error or an interrupt into a message and the exit code of `inv`.

A failed job's exit code becomes that of `inv`; each other error has the code that
`onebox.errors` lists; a signal gives 128 + its number.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from invoke.exceptions import Exit

from onebox import formatting
from onebox.agent.file_names import printable
from onebox.boxes import no_box
from onebox.command_hints import Hints
from onebox.context import BoxContext
from onebox.errors import JobFailed, OneboxError, UsageError
from onebox.jobs import log, receipt
from onebox.providers.values import Box
from onebox.python_hints import PythonHints
from onebox.signals import Interrupted, within_chain
from onebox.ui.screen import Screen


@contextmanager
def exit_code(
    context: BoxContext | None,
    environ: Mapping[str, str],
    task_names: Mapping[str, str],
    *,
    json: bool = False,
) -> Iterator[None]:
    """
    Print a OneboxError of the body, and raise Invoke's Exit with its exit code.

    Args:
        context: The box's context; None while it is being opened.

        task_names: What the user must type for each onebox task, such as "box.run", by
            the task's own name, such as "run".

        json: Whether the command has `--json`, so that an error while the context is
            being opened is printed as JSON too.
    """
    try:
        yield
    except OneboxError as error:
        # `inv --debug` shows this traceback.
        logging.getLogger("invoke").debug("onebox failed", exc_info=True)
        if context is None:
            screen = Screen(environ, Hints(task_names))
            screen.json = json
            screen.error(error)
        else:
            report(error, context)
        raise Exit(code=error.code) from error
    except Interrupted as stop:
        raise Exit(code=stop.code) from stop


@contextmanager
def python_errors(context: BoxContext | None, project: str | None) -> Iterator[None]:
    """
    Let errors of the body reach the Python code that has called onebox.

    Commands and flags in their texts become calls and parameters of `onebox.api`.

    Args:
        context: The box's context; None while it is being opened.

        project: The parameter `project` of the call, None if it was not given.

    Raises:
        OneboxError: Its text also names what still runs, and what to do next.

        KeyboardInterrupt: Ctrl-C; the text names what is left. Another signal is
            raised again, for the handler of the caller.

        BrokenPipeError: The reader of stdout is gone. The chain has ended.
    """
    try:
        yield
    except OneboxError as error:
        hints: Hints = PythonHints(project=project)
        if context is not None:
            _complete(error, context)
            hints = context.screen.hints
        error.message = hints.spell(error.message)
        error.running = hints.spell(error.running)
        error.next = hints.spell(error.next)
        error.in_full()
        raise
    except Interrupted as stop:
        if within_chain():
            # A stage of the user has called `onebox.api`.
            raise
        if stop.number == signal.SIGPIPE:
            raise BrokenPipeError(
                "the reader of stdout is gone; the command has ended"
            ) from None
        if stop.number != signal.SIGINT:
            signal.raise_signal(stop.number)
        text = "stopped" if context is None else _after_interrupt(context)
        raise KeyboardInterrupt(text) from None


def _complete(error: OneboxError, context: BoxContext) -> None:
    """Set what still runs, or the receipt and the output of the job that failed."""
    context.screen.close_line()
    if not isinstance(error, JobFailed):
        error.running = error.running or _still_running(context, error)
    elif error.job:
        folder = context.job_dir(error.job)
        error.receipt = receipt.read(folder / receipt.FILE)
        with suppress(OneboxError, OSError):
            error.text = log.tail(folder / "log")


def _after_interrupt(context: BoxContext) -> str:
    """Return what an interrupted call of `onebox.api` leaves, and how to continue."""
    if context.chain.left:
        return context.screen.hints.spell("\n".join(context.chain.left))
    if context.chain.stage == "run" and context.chain.job_state == "started":
        with suppress(OneboxError, OSError):
            record = context.store.record
            if record.box:
                goes_on = _goes_on(context, f"job {record.job}", record.box)
                return context.screen.hints.spell(
                    f"detached; {goes_on}: inv logs follows it, inv cancel stops it"
                )
    return context.screen.hints.spell(left_by_record(context))


def system_error(error: OSError) -> OneboxError:
    """Return the OneboxError for an error of the operating system."""
    where = (
        f": {formatting.path(os.fsdecode(error.filename))}" if error.filename else ""
    )
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    # Python names the file if it cannot be opened, but not if it cannot be written.
    return OneboxError(
        f"{error.strerror or error}{where or ' (on this machine)' * full}",
        next=f"{'free some space' if full else 'fix it'}, then run the same command "
        "again",
    )


def unexpected_error(error: Exception) -> OneboxError:
    """Return the OneboxError for an error that no code of onebox expects."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(frame.filename).name}:{frame.lineno}"
    text = printable(" ".join(f"{type(error).__name__}: {error}".split()))
    return OneboxError(
        f"internal error: {text} ({place})",
        next="please report it with the output of the same command under inv --debug",
    )


def report(error: OneboxError, context: BoxContext) -> None:
    """Print an error, with what still runs and what to type next."""
    if isinstance(error, JobFailed):
        # `run` has printed the failure of the job in its own line.
        return
    error.running = error.running or _still_running(context, error)
    context.screen.close_line()
    context.screen.error(error)


def report_interrupt(context: BoxContext) -> None:
    """Print what an interrupted chain leaves, and what to type next."""
    screen = context.screen
    screen.close_line()
    if context.chain.left:
        for line in context.chain.left:
            screen.say(line)
        return
    context.chain.superseded.clear()
    try:
        box = context.boxes.refresh()
    except (OneboxError, OSError) as error:
        # Without an answer from the provider, it is unknown whether a box is left. So
        # the message tells what the record says.
        screen.say(f"onebox: {left_by_record(context)}")
        screen.say(f"        its current state is unknown: {error}")
        screen.say("  next: inv status")
        return
    if box is None:
        screen.say("onebox: stopped; no box is left")
        return
    if context.chain.stage == "queue":
        screen.say("onebox: left the queue; nothing was pushed or started")
        screen.say(f"        {_left(context, box)}")
        screen.say("  next: inv logs follows the job; inv run --queue waits again")
        return
    if context.chain.stage == "run" and context.chain.job_state == "started":
        _report_detached(context, box)
        return
    if context.chain.stage == "run" and context.chain.job_state == "starting":
        screen.say(
            f"onebox: stopped while job {context.store.record.job} was being "
            "started; it may run"
        )
        screen.say(f"        {_left(context, box)}")
        screen.say("  next: inv logs follows it; inv run starts it if it does not run")
        return
    doing = f"during {context.chain.stage or 'the command'}"
    if context.chain.stage == "jupyter":
        doing = "while Jupyter was being installed"
    screen.say(f"onebox: stopped {doing}")
    screen.say(f"        {_left(context, box)}")
    screen.say(f"  next: {_how_to_resume(context)}")


def _how_to_resume(context: BoxContext) -> str:
    """Return the command that resumes the interrupted stage."""
    if context.chain.stage == "teardown":
        return "inv teardown"
    if context.chain.stage == "fetch":
        # The same command is not suggested: `inv run` would run the finished job again.
        temporary = context.store.record.temporary
        return f"inv fetch{' teardown' * context.invocation.owes_teardown(temporary)}"
    return "the same command resumes; inv teardown removes the box"


def _report_detached(context: BoxContext, box: Box) -> None:
    screen, idle = context.screen, context.settings.limits.idle_minutes
    cost = formatting.rate(box.offer.hourly)
    goes_on = _goes_on(context, "the job", box.id)
    screen.say(f"onebox: detached; {goes_on} ({cost})")
    screen.say("        follow it:    inv logs")
    screen.say("        stop the job: inv cancel")
    screen.say("        then:         inv fetch teardown")
    if not box.deadline:
        return
    off = formatting.when(box.deadline, time.time())
    screen.say(
        f"        the box powers itself off {idle:g} min after the job ends, and"
    )
    screen.say(f"        {off} at the latest; its disk is kept")


def _goes_on(context: BoxContext, job: str, box: str) -> str:
    """Return that a job continues on its box without this command, or waits there."""
    if context.chain.job_waits:
        return f"{job} of {box} waits in the queue"
    return f"{job} continues on {box}"


def _still_running(context: BoxContext, error: OneboxError) -> str:
    """
    Return a sentence about the box that is left, "" if no box is left.

    It is "" too for a mistake in the command line that was found before anything began.
    """
    if isinstance(error, UsageError) and not context.looked_for_box:
        return ""
    context.chain.superseded.clear()
    # The cause of the error, such as a full disk, may make these reads fail too. A
    # provider that has just failed to answer is not asked again, which would double the
    # time until the error is printed.
    with suppress(Exception):
        if not context.boxes.unanswered:
            box = context.boxes.refresh()
            return "" if box is None else _left(context, box)
    with suppress(Exception):
        record = context.store.record
        return f"{record.box} may still be up" if record.box else ""
    return _unreadable(context)


def _left(context: BoxContext, box: Box) -> str:
    return no_box.describe(f"{context.title} ({box.id})", box, still=True)


def left_by_record(context: BoxContext) -> str:
    """Return a sentence about the box that is left, without asking the provider."""
    try:
        record = context.store.record
    except (OneboxError, OSError):
        return f"stopped; {_unreadable(context)}"
    if not record.box:
        return "stopped; no box of this command is left"
    return (
        f"stopped; {context.title} ({record.box}) is left, "
        f"{formatting.rate(record.hourly)}, "
        f"{formatting.off(record.deadline, time.time())}"
    )


def _unreadable(context: BoxContext) -> str:
    return f"a box of {context.title} may still be up: inv cleanup lists it"
