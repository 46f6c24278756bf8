"""
Run a chain of stages to its end: whatever happens, nobody is left guessing.

A signal becomes `Interrupted`, a box that the chain made for itself is torn
down, and an error is printed with what still runs and what to type next.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress

from onebox import formatting
from onebox.boxes import offers, other_providers
from onebox.command_hints import Hints
from onebox.context import BoxContext
from onebox.errors import JobFailed, OneboxError
from onebox.invocation import Invocation
from onebox.providers.base import Box
from onebox.settings import check_files
from onebox.signals import Interrupted, caught
from onebox.stages import plan, provision, push, run, teardown
from onebox.ui.screen import Screen

__all__ = [
    "BoxContext",
    "Interrupted",
    "Invocation",
    "OneboxError",
    "frame",
    "report",
    "say_kept",
    "show_plan",
    "system_failed",
    "wants",
]


@contextmanager
def frame(context: BoxContext) -> Iterator[None]:
    """
    Run the outermost stage of a chain, and settle what the chain owes.

    A box that the chain made for itself goes at the end, unless it holds
    outputs that are not here, a job that still runs, or `--keep` was said.
    """
    with caught(lambda: _last_words(context)):
        try:
            try:
                with _settled(context):
                    yield
            except Interrupted:
                _interrupted(context)
                raise
            if context.screen.closed:
                # As any program whose reader has gone; all has been done.
                raise Interrupted(signal.SIGPIPE)
        finally:
            context.close()
            context.line.job_wanted = False


@contextmanager
def _settled(context: BoxContext) -> Iterator[None]:
    try:
        yield
    except OneboxError as error:
        _settle(context, error)
        raise
    except KeyboardInterrupt as error:
        # A user's own task has put another handler in the place of ours.
        raise Interrupted(signal.SIGINT) from error
    except (Exception, SystemExit):
        # A user's own task failed, after what it had asked for was done.
        _settle(context, None)
        raise
    else:
        _settle(context, None)


def _settle(context: BoxContext, error: OneboxError | None) -> None:
    try:
        teardown.settle(context, error)
    except OSError as refused:
        raise system_failed(refused) from refused


def wants(context: BoxContext, stage: str) -> bool:
    """
    Tell whether a stage must bring up what it needs before it runs.

    Raises:
        OneboxError: It would fail for a reason that can be seen from here:
            then no box is made for it.
    """
    if stage == "run":
        if not context.line.own_command and run.reason(context) is None:
            return False
        run.check(context)
    if stage in ("provision", "push", "run"):
        check_files(context.settings, context.root)
        offers.greet(context)
        if context.box is not None:
            provision.check(context, context.box)
        else:
            other_providers.refuse(context)
        if context.box is None and stage != "provision" and not context.looked:
            context.looked = True
            push.chosen(context)
    return True


def show_plan(context: BoxContext, stage: str, command: str = "") -> None:
    """Print what a stage would do, and why; change nothing."""
    plan.show(context, stage, command)


def say_kept(sessions: Iterable[BoxContext]) -> None:
    """Say which boxes a line has left up, once all of it is over."""
    for context in sessions:
        with suppress(OneboxError, OSError):
            teardown.say_kept(context)


def system_failed(error: OSError) -> OneboxError:
    """Return what the system refused (a full disk, a file not ours) as our error."""
    where = (
        f": {formatting.path(os.fsdecode(error.filename))}" if error.filename else ""
    )
    return OneboxError(
        f"{error.strerror or error}{where}", next="mend it; the same command goes on"
    )


def report(
    error: OneboxError,
    context: BoxContext | None,
    environ: Mapping[str, str],
    tasks: Mapping[str, str],
) -> None:
    """
    Print an error, with what still runs and what to type next.

    *tasks* says what each task of onebox's own is called in this project.
    """
    if context is None:
        Screen(environ, Hints(tasks)).error(error)
        return
    if isinstance(error, JobFailed):
        # Its line has said so; the exit code is the job's own.
        return
    if not error.running:
        error.running = _still_running(context)
    context.screen.close_line()
    context.screen.error(error)


def _interrupted(context: BoxContext) -> None:
    screen = context.screen
    screen.close_line()
    context.superseded.clear()
    try:
        box = context.look_again()
    except (OneboxError, OSError) as error:
        # No answer is no proof that nothing is left.
        screen.say(f"onebox: {_last_words(context)}")
        screen.say(f"        whether it still is cannot be seen now: {error}")
        screen.say("  next: inv status")
        return
    if box is None:
        screen.say("onebox: stopped; no box is left")
        return
    if context.doing == "run" and context.job_state == "started":
        _detached(context, box)
        return
    if context.doing == "run" and context.job_state == "starting":
        screen.say(
            f"onebox: stopped while job {context.store.record.job} was being "
            "started; it may run"
        )
        screen.say(f"        {_left(context, box)}")
        screen.say("  next: inv logs follows it; inv run, if it does not run")
        return
    screen.say(f"onebox: stopped during {context.doing or 'the command'}")
    screen.say(f"        {_left(context, box)}")
    screen.say(f"  next: {_goes_on(context)}")


def _goes_on(context: BoxContext) -> str:
    """Return what to type after a stop in a stage that did not end."""
    if context.doing == "teardown":
        return "inv teardown"
    if context.doing == "fetch":
        # Never the same command: `inv run` would run the finished job again.
        ours = context.store.record.ours_to_end
        return f"inv fetch{' teardown' * context.line.owes_teardown(ours)}"
    return "the same command goes on; inv teardown ends it"


def _detached(context: BoxContext, box: Box) -> None:
    screen, idle = context.screen, context.settings.limits.idle_minutes
    cost = formatting.rate(box.offer.hourly)
    off = formatting.clock(box.deadline, time.time())
    screen.say(f"onebox: detached; the job goes on, on {box.id} ({cost})")
    screen.say("        come back:    inv logs")
    screen.say("        stop the job: inv cancel")
    screen.say("        then:         inv fetch teardown")
    screen.say(f"        it powers itself off {idle:g} min after the job has ended,")
    screen.say(f"        at {off} at the latest; its disk is kept")


def _still_running(context: BoxContext) -> str:
    context.superseded.clear()
    # What made us fail, a full disk perhaps, may keep us from looking, too.
    with suppress(OneboxError, OSError):
        box = context.look_again()
        return "" if box is None else _left(context, box)
    record = context.store.record
    return f"{record.box} may still be up" if record.box else ""


def _left(context: BoxContext, box: Box) -> str:
    if box.state == "stopped":
        return f"{context.title} ({box.id}) is stopped; its disk is kept"
    off = formatting.clock(box.deadline, time.time())
    return (
        f"{context.title} ({box.id}) is still up: {formatting.rate(box.offer.hourly)}, "
        f"powers itself off at {off}"
    )


def _last_words(context: BoxContext) -> str:
    record = context.store.record
    if not record.box:
        return "stopped; no box of this line is left"
    return (
        f"stopped; {context.title} ({record.box}) is left, "
        f"{formatting.rate(record.price)}, powers itself off at "
        f"{formatting.clock(record.deadline, time.time())}"
    )
