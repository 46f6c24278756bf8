"""Remove the box after its outputs are fetched, and verify that it is gone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.boxes import delete, no_box, other_providers, power, replay_journal
from onebox.errors import (
    OneboxError,
    OutputsHeld,
    UsageError,
)
from onebox.jobs import checkpoints, job_facts, receipt, remote_job, run_record
from onebox.providers.values import Box
from onebox.signals import signals_delayed
from onebox.stages import (
    fetch,
    held_outputs,
    notebook_files,
    preemption_recovery,
)
from onebox.units import report as unit_report

if TYPE_CHECKING:
    from onebox.context import BoxContext
    from onebox.store.run_queue import WaitingRun

# Before outputs are discarded, the box is asked for its job and outputs. It gets this
# many seconds to answer.
ANSWER_SECONDS = 10.0
# Then it gets this many seconds to send the log of the job.
LOG_SECONDS = 30.0


class InUse(UsageError):
    """A command of the user's runs on the box, so the box stays."""


def describe_command(commands: Sequence[WaitingRun]) -> str:
    """Return a phrase that names a command which runs on the box, with its process."""
    first = commands[0]
    since = formatting.clock(first.since, time.time())
    more = f" and {len(commands) - 1} more" if commands[1:] else ""
    name = formatting.path(first.command)
    return f'"{name}" (process {first.pid}, since {since}){more} still runs'


def reason(context: BoxContext) -> str | None:
    """Return a phrase with the box's id and state, None if there is no box."""
    box = context.find_box()
    return None if box is None else f"{box.id} is {box.state}"


def perform(
    context: BoxContext,
    *,
    discard: bool = False,
    yes: bool = False,
    after_failure: bool = False,
    unused: bool = False,
    end_run: bool = True,
) -> None:
    """
    Remove the box after checking that its outputs are fetched.

    Args:
        discard: Delete outputs that are not fetched.

        yes: Do not ask before deleting outputs that are not fetched.

        after_failure: The chain has failed, and the error that ended it is reported.
            So no second error is raised if the disk of a preempted box stays.

        unused: No job ran on the box, so its outputs are not checked.

        end_run: Also forget an interrupted run, so that the next run starts from the
            beginning. It is True only if the user requested the teardown.

    Raises:
        OutputsHeld: Outputs are not fetched: the box or disk that has them stays.

        InUse: A command of `exec` or `ssh` runs on the box, and *discard* is not set.
    """
    context.lock()
    replay_journal.replay(context)
    context.chain.superseded.clear()
    box = context.boxes.refresh()
    if box is None:
        _clean_up_without_box(context)
        if end_run:
            _end_run(context)
        return
    with power.off_again_if_it_fails(context, box):
        if not discard and not unused:
            box = _fetch_from_stopped_box(context, box)
            if box.state == "running":
                notebook_files.bring_back(context)
        kept_disks = _remove(context, box, discard=discard, yes=yes, unused=unused)
    if kept_disks and not after_failure:
        raise OutputsHeld(
            f"{formatting.first_names(kept_disks)} was preempted, and its job has not "
            "ended since: the disk may hold the only copy of its outputs, so it stays",
            next="inv fetch --rescue teardown, or inv teardown --discard-outputs",
        )
    if end_run and not kept_disks:
        _end_run(context)


def perform_all(context: BoxContext, *, discard: bool, yes: bool) -> None:
    """Tear down every box of this project, each with its own checks."""
    names = sorted(
        {
            box.tags.name
            for box in context.provider.find(context.owner)
            if box.tags.project == context.project
        }
    )
    errors: list[OneboxError] = []
    for name in names:
        try:
            with context.screen.about(name):
                perform(context.with_name(name), discard=discard, yes=yes)
        except OneboxError as error:
            errors.append(error)
    elsewhere = other_providers.find(context)
    for other in elsewhere:
        other_providers.print_box(context, other, context.screen.note)
    # The first error ends the command line, which prints it.
    for further in errors[1:]:
        context.screen.error(further)
    if errors:
        raise errors[0]
    if not names and not elsewhere:
        delete.remove_unused(context)
        none = f"there is no box of project {context.settings.project}"
        context.screen.print_stage("teardown", "done", "up to date", none)


def _clean_up_without_box(context: BoxContext) -> None:
    """Remove the local state and the cloud resources of a box that is gone."""
    other_providers.refuse(context)
    last = context.store.record.box
    delete.remove_unused(context, [last] if last else [])
    context.store.forget()
    context.choose_provider()
    context.forget_connection()
    context.alias.remove()
    context.screen.print_stage(
        "teardown", "done", "up to date", no_box.message(context)
    )
    for box in no_box.other_boxes(context):
        context.screen.note(no_box.describe(context.title_of(box.tags.name), box))
        context.screen.note(f"to remove it: inv teardown --name={box.tags.name}")


def _fetch_from_stopped_box(context: BoxContext, box: Box) -> Box:
    """
    Fetch from a stopped box, unless its outputs are known to be fetched already.

    The box has to be started anyway to check its outputs. Fetching them at once avoids
    paying for a second start. If only the disk of the box is left, nothing is started
    or fetched.

    Returns:
        The box, in its new state if it was started.
    """
    if box.state != "stopped" or box.disk_only:
        return box
    if held_outputs.is_known_to_be_fetched(context, box):
        return box
    with context.using_outputs_folder(context.job_outputs_folder):
        fetch.perform(context, caller="teardown")
    return context.boxes.refresh() or box


def _remove(
    context: BoxContext, box: Box, *, discard: bool, yes: bool, unused: bool
) -> list[str]:
    """
    Remove the box and the disks of preempted boxes.

    A disk stays if it may hold the only copy of outputs, unless *discard* is set.

    Returns:
        The ids of the disks that stay.
    """
    with (
        context.chain.timed("teardown"),
        context.screen.stage("teardown") as stage_line,
    ):
        disks, sessions = context.boxes.preempted, context.store.sessions
        before = sessions.seen(box.id)
        # A command may have run since the caller looked.
        unused = unused and before.mark == ""
        stage_line.doing("checking that the outputs are fetched")
        if not discard and not unused:
            held_outputs.check_box(context, box, stage_line.doing)
        elif discard and not yes and not _loses_nothing(context, box, disks):
            _confirm_discard(context, [box, *disks])
        if discard:
            stage_line.doing("fetching the log")
            _keep_log(context, box)
        removable = [
            disk
            for disk in disks
            if discard or preemption_recovery.is_superseded(context, disk)
        ]
        with sessions.none_begins(box.id) as commands:
            if commands and box.state == "running" and not discard:
                raise InUse(
                    f"{describe_command(commands)} on {context.title} ({box.id}); "
                    "the box stays",
                    next="inv teardown when it has ended, or inv teardown "
                    "--discard-outputs",
                )
            if not discard and sessions.has_run(box.id, before):
                # A command has ended since the outputs were checked.
                held_outputs.check_box(context, box, stage_line.doing)
            if not discard:
                named = context.store.record.fetched_folder
                folder = context.root / named if named else context.job_outputs_folder
                with context.using_outputs_folder(folder):
                    unit_report.save_table(context, context.store.record.job)
            job_facts.note_removal(context, discard=discard)
            for part in [*removable, box]:
                stage_line.doing(f"removing {part.id}")
                with signals_delayed():
                    # Ctrl-C takes effect only after this call, which waits until
                    # nothing billable is left of the box.
                    delete.delete(context, part)
                    if part is box:
                        stage_line.end("", f"{box.id}: machine, disk: gone")
        removed = [part.id for part in [box, *removable]]
        delete.remove_unused(context, removed)
        context.end_with_box()
        on_cluster = box.is_folder or box.user_ssh
        parts = "folder, jobs" if on_cluster else "machine, disk, keys"
        stage_line.end("", f"{formatting.first_names(removed)}: {parts}: gone")
    return [disk.id for disk in disks if disk not in removable]


def _keep_log(context: BoxContext, box: Box) -> None:
    """
    Keep what is known of the job on a box whose outputs are discarded.

    Its log is fetched if the box answers. A box that does not is removed all the same.
    """
    job = context.store.record.job
    if box.state != "running" or (job and _has_receipt(context, job)):
        return
    try:
        context.ssh(box).channel(within=ANSWER_SECONDS)
        ended = remote_job.keep_log(context, box, LOG_SECONDS)
        if ended is not None:
            run_record.record_end(context, ended.job, ended.record)
            job_facts.note_end(context, ended.job, ended.record)
    except (OneboxError, OSError) as error:
        if job:
            context.screen.warn(f"the log of job {job} is not complete here: {error}")


def _has_receipt(context: BoxContext, job: str) -> bool:
    return receipt.read(context.job_dir(job) / receipt.FILE) is not None


def _end_run(context: BoxContext) -> None:
    """Forget the latest run and its attempts; print a note if its job had not ended."""
    run = run_record.read(context)
    run_record.forget(context)
    if run is not None and run.attempts and not run.ended:
        facts = job_facts.read(context, run.job)
        known = facts is not None and facts.exit is not None
        if facts and known and facts.cause not in run_record.NOT_BY_ITSELF:
            # `status` has stored the end of the job, but the box did not answer now.
            return
        pull = checkpoints.pulls(context).latest(run.id)
        kept = "" if pull is None else "; its checkpoints stay in .onebox/checkpoints"
        context.screen.note(
            f"the run of job {run.id} is abandoned: inv run starts from the "
            f"beginning{kept}"
        )


def _loses_nothing(context: BoxContext, box: Box, disks: list[Box]) -> bool:
    """
    Return whether *box* and *disks* can be removed without losing outputs.

    The result is False if that is unknown, for example if the box does not answer.
    """
    if context.store.record.session:
        return False
    if not all(preemption_recovery.is_superseded(context, disk) for disk in disks):
        return False
    known = held_outputs.is_known_to_be_fetched(context, box)
    if box.state == "stopped" and not known:
        # The box would have to be started for this check, which would cost money.
        return False
    with suppress(OneboxError):
        if box.state != "stopped":
            context.ssh(box).channel(within=ANSWER_SECONDS)
        held_outputs.check_box(context, box)
        return True
    return False


def _confirm_discard(context: BoxContext, boxes: list[Box]) -> None:
    """
    Ask the user before outputs are deleted.

    Raises:
        UsageError: The user does not type the id of the box, or there is no terminal.
    """
    ids = formatting.first_names([box.id for box in boxes])
    question = f"Outputs on {ids} that are not fetched will be lost"
    job = _running_job(context)
    if job:
        question += f", and job {job}, which still runs, will be stopped"
    if not context.screen.ask(
        f"{question}. Type the box's id to continue:", boxes[0].id
    ):
        raise UsageError(
            f"not confirmed; {ids} and its outputs are untouched",
            next="inv teardown --discard-outputs --yes",
        )


def _running_job(context: BoxContext) -> str:
    """
    Return the id of the job that runs on the box.

    The result is "" if no job runs or if the box does not answer.
    """
    with suppress(OneboxError):
        box = context.find_box()
        if box is not None and box.state == "running":
            context.ssh(box).channel(within=ANSWER_SECONDS)
            latest = remote_job.latest(context)
            return latest.job if latest is not None and latest.runs else ""
    return ""
