"""Fetch the job's outputs from the box, verified byte for byte."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onebox import formatting
from onebox.boxes import bring_up, no_box, power
from onebox.errors import OutputsHeld, UsageError
from onebox.jobs import notify, receipt, remote_job, run_record
from onebox.project_files import note_folder, output_roots
from onebox.providers.values import Box
from onebox.stages import fetch_warnings, held_outputs, notebook_files
from onebox.transfer import fetch_outputs, verify_outputs
from onebox.transfer.fetch_outputs import Fetched
from onebox.units import earlier as earlier_units
from onebox.units import report as unit_report

if TYPE_CHECKING:
    from onebox.context import BoxContext
    from onebox.remote.job_answers import ExitRecord, JobStatus
    from onebox.ui.progress import StageLine


def reason(context: BoxContext) -> str | None:
    """
    Return a phrase that names the outputs that are not fetched yet.

    If the box does not run, its outputs are unknown, and the phrase gives the state of
    the box instead. The result is None if there is no box or nothing to fetch.
    """
    box = context.find_box()
    if box is None:
        return None
    if box.state != "running":
        return f"{box.id} is {box.state}"
    return held_outputs.compare(context, context.outputs_folder).missing


def perform(
    context: BoxContext,
    *,
    caller: str = "fetch",
    partial: bool = False,
    unsafe_links: bool = False,
    unsafe_git: bool = False,
    rescue: bool = False,
    ended: ExitRecord | None = None,
) -> Fetched:
    """
    Fetch the outputs. If there is no box, report that `run` has fetched them already.

    If there is no box, no job to fetch, and `teardown` follows, nothing is done.

    Args:
        caller: The stage that needs the outputs: "fetch", "run" after the job has
            ended, or "teardown" before the box is removed.

        partial: Fetch even if the job still runs or its outcome is unknown.

        unsafe_links: Also create links that point out of the project.

        unsafe_git: Also fetch the repositories among the outputs.

        rescue: Pay for another machine if only the disk of the box is left.

        ended: The exit record of the job if *caller* is "run". For other callers it is
            read from the box.

    Raises:
        OutputsHeld: Some outputs could not be fetched and verified: the box is kept.
    """
    context.lock()
    box = context.find_box()
    if box is None:
        if _only_teardown_matters(context):
            context.screen.print_stage(
                "fetch", "done", "nothing to do", no_box.message(context)
            )
            return Fetched(0, 0, [], {}, [], "")
        return _fetched_by_run(context)
    was_stopped = box.state == "stopped"
    with (
        power.off_again_if_it_fails(context, box),
        context.chain.timed("fetch"),
        context.screen.stage("fetch") as stage_line,
    ):
        box = _reachable_box(context, box, stage_line, rescue=rescue)
        before = context.store.sessions.seen(box.id)
        if caller != "run" and not partial:
            ended = _require_ended_job(context, box)
        fetched = _download(
            context,
            stage_line,
            partial,
            unsafe_links=unsafe_links,
            unsafe_git=unsafe_git,
        )
        _check_complete(context, stage_line, fetched, partial, ended)
        # A fetch that is recorded is not repeated, so the table comes first.
        unit_report.save_table(context, context.store.record.job)
        if not partial:
            context.store.update(
                fetched=fetched.digest or "nothing",
                fetched_folder=context.outputs_folder_for_record,
            )
            context.store.sessions.note_fetched(box.id, before)
            context.chain.fetched = fetched
            context.chain.fetched_folder = context.outputs_folder
            note_folder(context, context.outputs_folder)
            if caller != "run":
                receipt.copy_beside(context, context.store.record.job)
        _end_line(context, stage_line, fetched, partial)
    notebook_files.bring_back(context)
    if was_stopped and rescue:
        _stop_rescue_machine(context, box)
    elif (
        was_stopped
        and caller == "fetch"
        and "teardown" not in context.invocation.stages
    ):
        power.power_off(context, box)
    fetch_warnings.warn_of_files_left(context, fetched, caller)
    fetch_warnings.warn_of_renamed_files(context, fetched)
    unit_report.after_fetch(context, context.store.record.job)
    return fetched


def fetch_previous(
    context: BoxContext, box: Box, *, only: bool = False
) -> JobStatus | None:
    """
    Fetch the log and outputs of the last job before a push or a job overwrites them.

    Args:
        only: Whether `--only` was given. If so, the outputs of a failed job stay on
            the box.

    Returns:
        The status of that job, or None if no job has run on this box. The set-up of an
        image does not count as a job.

    Raises:
        Busy: The job still runs.

        OutputsHeld: Some outputs of that job cannot be fetched, or the job seems to
            have written its result to files outside of the outputs.
    """
    notebook_files.bring_back(context)
    record = context.store.record
    last_job = remote_job.latest(context)
    if last_job is None and record.has_unfetched_job(box.id):
        # The box does not know the recorded job any more, but may still have the job's
        # outputs.
        with context.using_outputs_folder(context.job_outputs_folder):
            if held_outputs.compare(context, context.outputs_folder).missing:
                context.screen.note(f"fetching the outputs of job {record.job} first")
                perform(context, caller="run")
    if last_job is None or last_job.job.startswith("image-"):
        return None
    remote_job.refuse_running(context, last_job)
    remote_job.fetch_log(context, box, last_job)
    if last_job.record is None or last_job.record.cause not in run_record.NOT_BY_ITSELF:
        notify.learned(context, box, last_job.job, last_job.record)
    succeeded = last_job.record is not None and not last_job.record.code
    if record.fetched or (only and not succeeded):
        return last_job
    context.screen.note(f"fetching the outputs of the earlier job {last_job.job} first")
    with context.using_outputs_folder(context.job_outputs_folder):
        perform(
            context,
            caller="run",
            partial=last_job.state == "lost",
            ended=last_job.record,
        )
    context.chain.fetched_earlier_job = last_job.job
    return last_job


def _reachable_box(
    context: BoxContext, box: Box, stage_line: StageLine, *, rescue: bool
) -> Box:
    """Return the box once it is reachable; start it if it is stopped."""
    if box.state != "stopped":
        return bring_up.wait_until_reachable(context, box, stage_line.doing)
    if box.disk_only and not rescue:
        raise UsageError(_describe_rescue(box), next="inv fetch --rescue")
    stage_line.doing(f"starting {box.id} for its outputs")
    return power.start(context, box)


def _require_ended_job(context: BoxContext, box: Box) -> ExitRecord | None:
    """
    Fetch the log of the last job and return the job's exit record.

    The result is None if no job has run on the box, or if its outcome is unknown.

    Raises:
        UsageError: The job still runs.
    """
    latest = remote_job.latest(context)
    if latest is None:
        return None
    if latest.runs:
        raise UsageError(
            f"job {latest.job} still runs, so its outputs may change",
            next="inv logs waits for it; inv fetch --partial fetches them as they are",
        )
    run_record.record_end(context, latest.job, latest.record)
    remote_job.fetch_log(context, box, latest)
    notify.learned(context, box, latest.job, latest.record)
    return latest.record


def _download(
    context: BoxContext,
    stage_line: StageLine,
    partial: bool,
    *,
    unsafe_links: bool,
    unsafe_git: bool,
) -> Fetched:
    stage_line.doing("listing the outputs on the box")
    receipt.outdate(context, context.store.record.job)
    known = [] if partial else notebook_files.fetched_before(context)
    try:
        fetched: Fetched = context.call_resuming(
            lambda channel: fetch_outputs.fetch(
                channel,
                output_roots(context),
                context.outputs_folder,
                context.fetch_memory,
                stage_line.progress,
                unsafe_links=unsafe_links,
                unsafe_git=unsafe_git,
                into_project=context.outputs_folder == context.root,
                search_outside="" if partial else "always",
                known=known,
                replaced=earlier_units.replaced(context),
            )
        )
    except OutputsHeld as error:
        error.next = error.next or (
            "fix it, then inv fetch; inv fetch --into=DIR puts them elsewhere"
        )
        raise
    return fetched


def _check_complete(
    context: BoxContext,
    stage_line: StageLine,
    fetched: Fetched,
    partial: bool,
    ended: ExitRecord | None,
) -> None:
    """Raise OutputsHeld if the fetch had to leave outputs on the box."""
    refused = held_outputs.refused_links_error(fetched)
    refused = refused or held_outputs.refused_repositories_error(fetched)
    if refused is not None:
        count = formatting.count(fetched.files, "file")
        stage_line.end("", f"{count} fetched", mark="failed")
        raise refused
    if partial:
        return
    unnamed = held_outputs.unnamed_outputs_error(
        context, fetched.changes_outside, ended
    )
    if unnamed is not None:
        _end_line(context, stage_line, fetched, partial)
        raise unnamed


def _only_teardown_matters(context: BoxContext) -> bool:
    """
    Return whether a fetch without a box may pass, because `teardown` follows.

    A killed command may have left a builder, or a box that is not recorded yet.
    `teardown` removes them, so it must run. An unfetched job is still an error.
    """
    stages, record = context.invocation.stages, context.store.record
    follows = "fetch" in stages and "teardown" in stages[stages.index("fetch") :]
    unfetched = bool(record.job) and not record.fetched
    return follows and context.chain.fetched is None and not unfetched


def _fetched_by_run(context: BoxContext) -> Fetched:
    """
    Return the result of the fetch by `run`; this chain has removed the box since then.

    Raises:
        UsageError: `run` has fetched nothing, or a fetched file is missing or changed
            in the folder for outputs.
    """
    fetched = context.chain.fetched
    if fetched is None:
        raise no_box.error(context, "to fetch from")
    is_default = context.outputs_folder == context.default_outputs_folder
    folder = context.chain.fetched_folder if is_default else context.outputs_folder
    missing = verify_outputs.changed_here(folder, context.fetch_memory)
    if missing:
        raise UsageError(
            f"{context.title} is gone, and these are not in {folder}: {missing}",
            next="inv run --keep, then inv fetch",
        )
    context.screen.print_stage(
        "fetch", "done", "up to date", "run has fetched the outputs"
    )
    return fetched


def _end_line(
    context: BoxContext, stage_line: StageLine, fetched: Fetched, partial: bool
) -> None:
    roots = output_roots(context)
    if not roots:
        stage_line.end("nothing to do", "no [fetch] outputs are configured")
        return
    where = " ".join(_local_name(context, p) for p in roots if p not in fetched.missing)
    missing = [p for p in context.settings.fetch.outputs if p in fetched.missing]
    if not fetched.files:
        absent = [f"{path} is not on the box" for path in missing]
        why = formatting.first_names([f"{where} is empty"] * bool(where) + absent)
        stage_line.end("", f"no outputs: {why}", mark="warn")
        return
    count = formatting.count(fetched.files, "file")
    amount = f"{count}, {formatting.byte_count(fetched.bytes)}"
    state = "as they are now" if partial else "verified"
    context.chain.fetched_to = where
    without = f" (no {formatting.first_names(missing)})" * bool(missing)
    stage_line.end("", f"{amount}, {state} → {where}{without}")


def _local_name(context: BoxContext, path: str) -> str:
    """
    Return the local path of the output *path*, as messages show it.

    The result is relative to the project folder if outputs are fetched into a folder
    inside the project.
    """
    if context.root in (context.outputs_folder, *context.outputs_folder.parents):
        local = (context.outputs_folder / path).relative_to(context.root)
        return f"{local}{'/' * path.endswith('/')}"
    return f"{context.outputs_folder}/{path}"


def _describe_rescue(box: Box) -> str:
    offer = box.offer
    highest = (
        offer.hourly if offer.machine_on_demand is None else offer.hourly_on_demand
    )
    return (
        f"only the disk of {box.id} is left: reading it needs another machine, "
        f"{offer.type} at up to {formatting.rate(highest)}, while it runs"
    )


def _stop_rescue_machine(context: BoxContext, box: Box) -> None:
    """Stop the machine that read the disk; warn if the job had not ended by itself."""
    latest = remote_job.latest(context)
    power.power_off(context, box)
    if latest is not None and (latest.cause or "poweroff") in run_record.NOT_BY_ITSELF:
        context.screen.warn(
            f"job {latest.job} did not end by itself: these are the outputs that its "
            "disk held"
        )
