"""Fetch what a preempted box holds, while it still answers or from its disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onebox import formatting
from onebox.boxes import delete, power
from onebox.errors import BoxFailed, Busy, Lost, OneboxError, OutputsHeld, Preempted
from onebox.jobs import checkpoints, remote_job, run_record
from onebox.jobs.run_record import Run
from onebox.project_files import checkpoint_paths, roots_of_attempt
from onebox.providers.values import Box
from onebox.stages import fetch, held_outputs
from onebox.transfer import fetch_outputs

if TYPE_CHECKING:
    from onebox.context import BoxContext
    from onebox.ui.progress import StageLine

# The last pull of checkpoints waits at most this many seconds for a pull that runs in
# another terminal.
OTHERS_SECONDS = 10.0


def is_only_disk(box: Box) -> bool:
    """
    Return whether only the disk of *box* is left.

    This is also true while a temporary machine reads that disk.
    """
    return box.disk_only or box.rescue


def rescue_and_remove(context: BoxContext, box: Box, stage_line: StageLine) -> None:
    """
    Fetch what the disk of a box holds, then remove the box.

    The machine that reads the disk is smaller than the user requested. No job can run
    on this machine, so it is removed together with the disk.

    Raises:
        OutputsHeld: Some outputs could not be fetched: the disk stays.
    """
    record = context.store.record
    context.invocation.box_replaced(record.temporary)
    if record.job or not held_outputs.is_known_to_be_fetched(context, box):
        _rescue(context, box, stage_line)
    stage_line.doing(f"removing {box.id}")
    delete.delete(context, box)
    context.store.forget()
    context.boxes.refresh()


def pull_last_checkpoints(
    context: BoxContext, run: Run, box: Box, job_id: str = ""
) -> bool:
    """
    Pull the checkpoints a last time, while the box still answers.

    Args:
        job_id: The job whose checkpoints to pull; "" means the last job of the run.

    Returns:
        True if the checkpoints were pulled, or if onebox.toml configures none. False
        if a pull in another terminal did not end in time.
    """
    if not checkpoint_paths(context):
        return True
    try:
        context.call_resuming(
            lambda channel: checkpoints.take(
                context,
                channel,
                run=run.id,
                job=job_id or run.job,
                box=box,
                wait=OTHERS_SECONDS,
            ),
            box,
        )
    except Busy as error:
        context.screen.note(f"{box.id}: {error.message}")
        return False
    return True


def fetch_attempt(
    context: BoxContext, run: Run, box: Box, stage_line: StageLine
) -> bool:
    """
    Fetch the checkpoints, log and outputs of the run's last attempt.

    Returns:
        Whether everything was fetched. It is False if the box goes down meanwhile.
    """
    stage_line.doing(f"fetching from {box.id}")
    screen = context.screen
    try:
        checkpoints_pulled = pull_last_checkpoints(context, run, box)
        status = context.call_resuming(
            lambda channel: remote_job.status(channel, run.job), box
        )
        remote_job.fetch_log(context, box, status, screen.output, screen.output_gone)
        return _keep_outputs(context, run.job, box, stage_line) and checkpoints_pulled
    except (Lost, Preempted, BoxFailed):
        # The box went down during the fetch.
        return False


def _rescue(context: BoxContext, box: Box, stage_line: StageLine) -> None:
    """
    Start a machine that reads the disk of a box, and fetch from it.

    If the fetch fails, the machine is stopped and the disk stays.
    """
    if box.state != "running":
        stage_line.doing(f"starting a machine to read the disk of {box.id}")
        box = power.start(context, box)
    context.screen.note(
        f"only the disk of {box.id} is left: a temporary {box.offer.type} reads it, "
        f"{formatting.rate(box.offer.hourly)}"
    )
    try:
        if not _fetch_latest_job(context, box, stage_line):
            raise OutputsHeld(
                f"not everything on the disk of {box.id} could be fetched; it is kept",
                next="inv run, or inv fetch --rescue",
            )
    except OneboxError:
        power.power_off(context, box)
        raise


def _fetch_latest_job(context: BoxContext, box: Box, stage_line: StageLine) -> bool:
    """Fetch what the last job left on the disk; return whether all was fetched."""
    latest, record = remote_job.latest(context), context.store.record
    if latest is None and record.has_unfetched_job(box.id):
        # The box does not know the recorded job any more, but may still have the job's
        # outputs.
        return _keep_outputs(context, record.job, box, stage_line)
    if latest is None or latest.job.startswith("image-"):
        if not held_outputs.is_known_to_be_fetched(context, box):
            fetch.perform(context, caller="run")
        return True
    job_id = latest.job
    run_record.record_end(context, job_id, latest.record)
    run = run_record.read(context)
    if run is not None and run.has(job_id) and not run.ended:
        stage_line.doing(f"fetching from {box.id}")
        remote_job.fetch_log(context, box, latest)
        fetched = _keep_outputs(context, job_id, box, stage_line)
        return _pull_checkpoints(context, run, box, job_id) and fetched
    remote_job.fetch_log(context, box, latest)
    if not record.fetched:
        context.screen.note(f"fetching the outputs of the earlier job {job_id} first")
        with context.using_outputs_folder(context.job_outputs_folder):
            fetch.perform(context, caller="run", partial=latest.state == "lost")
    return True


def _pull_checkpoints(context: BoxContext, run: Run, box: Box, job_id: str) -> bool:
    """
    Pull the checkpoints of one job of a run, if they are needed.

    They are not needed if *run* has a later job than *job_id*, and if checkpoints of
    *run* are already on this machine.

    Returns:
        Whether the checkpoints are pulled or not needed.
    """
    if job_id != run.job and checkpoints.pulls(context).latest(run.id) is not None:
        return True
    return pull_last_checkpoints(context, run, box, job_id)


def _keep_outputs(
    context: BoxContext, job_id: str, box: Box, stage_line: StageLine
) -> bool:
    """
    Fetch the outputs of an interrupted attempt to a folder of their own.

    They do not go to the default folder, which is for the outputs of a finished job.

    Returns:
        Whether all outputs were fetched.
    """
    folder = context.job_dir(job_id)
    fetched: fetch_outputs.Fetched = context.call_resuming(
        lambda channel: fetch_outputs.fetch(
            channel,
            roots_of_attempt(context),
            folder / "outputs",
            folder / "outputs-memory",
            stage_line.progress,
        ),
        box,
    )
    return not fetched.refused and not fetched.repositories
