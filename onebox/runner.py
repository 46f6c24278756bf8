"""Run a chain of stages; at its end, tear down its temporary box."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from onebox.boxes import announcement, other_providers, replay_journal
from onebox.context import BoxContext
from onebox.errors import NotWritten, OneboxError
from onebox.exit_code import (
    left_by_record,
    report_interrupt,
    system_error,
    unexpected_error,
)
from onebox.invocation import JOB_STAGES
from onebox.project_files import select_project
from onebox.providers.values import Box
from onebox.signals import Interrupted, signals_as_exceptions
from onebox.stages import data, map, preflight, provision, queue, run, settle, sweep
from onebox.ui.console import CLOSED

# The stages whose chain is checked before its needs run.
CHECKED = ("provision", "push", "run", "map", "notebook")


@contextmanager
def outermost_stage(context: BoxContext) -> Iterator[None]:
    """
    Run the outermost stage of a chain, then tear down its temporary box.

    The box stays if it holds outputs that are not fetched, if its job still runs, or
    if `--keep` is set.
    """
    with signals_as_exceptions(
        lambda: left_by_record(context), exits=not context.invocation.from_python
    ):
        try:
            try:
                with _settled(context):
                    yield
            except Interrupted:
                report_interrupt(context)
                raise
            if context.screen.problem:
                advice = "free some space; inv logs prints a job's output again"
                if context.screen.problem == CLOSED:
                    advice = "give it a reader or a file, such as /dev/null"
                raise NotWritten(
                    f"stdout cannot be written: {context.screen.problem}", next=advice
                )
            if context.screen.closed:
                # The reader of our output is gone, so the exit code must be that of a
                # program that SIGPIPE has ended.
                raise Interrupted(signal.SIGPIPE)
        finally:
            context.close()
            context.invocation.job_requested = False


@contextmanager
def _settled(context: BoxContext) -> Iterator[None]:
    try:
        yield
    except OneboxError as error:
        _settle(context, error)
        raise
    except KeyboardInterrupt as error:
        # The signal handler of onebox never raises KeyboardInterrupt. If one arrives
        # here, a user's own task has replaced the handler.
        raise Interrupted(signal.SIGINT) from error
    except (Exception, SystemExit):
        # Such an exception does not come from onebox. It means that a user's own task
        # has failed after the task's stages had succeeded.
        _settle(context, None)
        raise
    else:
        _settle(context, None)


def _settle(context: BoxContext, error: OneboxError | None) -> None:
    try:
        settle.settle(context, error)
    except OneboxError:
        raise
    except OSError as os_error:
        raise system_error(os_error) from os_error
    except Exception as unexpected:
        raise unexpected_error(unexpected) from unexpected


def prepare_chain(context: BoxContext, stage: str) -> bool:
    """
    Check the chain before the needs of *stage* run, and print the title.

    If the chain creates a box and pushes to it, the files to push are selected too, so
    that a problem with them is found before the box is created.

    Returns:
        Whether the needs must run. It is False if the job itself would be skipped.

    Raises:
        OneboxError: The stage would fail for a reason that can be found before its
            needs run, so no box is created for it.
    """
    if stage in CHECKED:
        preflight.check(context)
    if stage == "run":
        if not context.invocation.own_command and run.reason(context) is None:
            _replay_open_intents(context)
            return False
        context.chain.units = None
        run.check(context)
    if stage == "map" and not map.check(context):
        # There are no units to run, or each of several boxes has needs of its own.
        _replay_open_intents(context)
        return False
    if stage in JOB_STAGES:
        _warn_once(context, preflight.describe_links(context))
        if context.invocation.queue:
            # What would be refused is refused before the wait, too.
            _check_box(context, stage)
            queue.wait_for_turn(context)
        else:
            queue.lock_or_refuse(context)
    if stage in CHECKED:
        announcement.print_title(context)
        box = _check_box(context, stage)
        if box is None and stage != "provision" and not context.chain.files_checked:
            context.chain.files_checked = True
            data.check_pushed(context, select_project(context).paths)
            data.check_disk(context)
    return True


def _check_box(context: BoxContext, stage: str) -> Box | None:
    """
    Return the current box, None if there is none.

    Raises:
        UsageError: The box is not the requested one, or nothing is large enough for
            the job or a unit.

        InputError: There is no box, and the script to run is missing.
    """
    box = context.find_box()
    if box is not None:
        provision.check(context, box)
    else:
        other_providers.refuse(context)
    if stage in JOB_STAGES:
        sweep.check_size(context, box)
    if box is not None:
        return box
    if stage in JOB_STAGES:
        run.check_script(context)
        _warn_once(context, run.describe_missing_script(context))
    return None


def _warn_once(context: BoxContext, warning: str) -> None:
    """Print a warning, unless it is "" or was printed for this command line."""
    if warning and warning not in context.chain.warned:
        context.chain.warned.add(warning)
        context.screen.warn(warning)


def _replay_open_intents(context: BoxContext) -> None:
    """Finish what an earlier command began, because no stage after this one does it."""
    if context.store.open_intents():
        context.lock()
        replay_journal.replay(context)


def print_kept_boxes(contexts: Iterable[BoxContext]) -> None:
    """Print the boxes that a finished command line leaves up."""
    for context in contexts:
        with suppress(OneboxError, OSError):
            settle.print_kept_box(context)
