"""Bring here what the disk of a box holds that the cloud has taken, then remove it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.boxes import lifecycle, power
from onebox.errors import BoxFailed, Busy, Lost, OneboxError, OutputsHeld, Preempted
from onebox.jobs import checkpoints, client, run_history
from onebox.jobs.run_history import Run
from onebox.providers.base import Box
from onebox.stages import fetch
from onebox.transfer import fetch_outputs

if TYPE_CHECKING:
    from onebox.context import BoxContext
    from onebox.ui.progress import StageLine

# A final pull waits so long for one of another terminal's to end.
OTHERS_SECONDS = 10.0


def is_disk(box: Box) -> bool:
    """Tell whether a box has no machine of the size that it was made with."""
    return box.disk_only or box.rescue


def finish(context: BoxContext, box: Box, line: StageLine) -> None:
    """
    Bring here what the disk of a box holds, then remove the box.

    No job runs on the machine that it takes to read a disk: it is smaller than what
    was asked for.

    Raises:
        OutputsHeld: Not all of it could be brought here: the disk stays.
    """
    record = context.store.record
    if not context.line.owes_teardown(record.ours_to_end):
        # It was not the chain's to end; nor is the one in its place.
        context.line.box_wanted = True
    if record.box != box.id or record.job:
        _read(context, box, line)
    line.doing(f"removing {box.id}")
    lifecycle.remove(context, box)
    context.store.forget()
    context.look_again()


def last_pull(context: BoxContext, run: Run, box: Box, job_id: str = "") -> bool:
    """
    Bring the checkpoints here once more, from a box that still answers.

    Tells whether they are here; a pull that has not ended may be in the way.

    Args:
        job_id: Whose they are; the run's last job's if "".
    """
    if not context.settings.fetch.checkpoints:
        return True
    try:
        context.resuming(
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


def bring_all(context: BoxContext, run: Run, box: Box, line: StageLine) -> bool:
    """Fetch checkpoints, outputs, the log's rest; tell whether all of it is here."""
    line.doing(f"fetching what {box.id} has")
    screen = context.screen
    try:
        pulled = last_pull(context, run, box)
        told = context.resuming(lambda channel: client.status(channel, run.job), box)
        client.bring_log(context, box, told, screen.output, screen.output_gone)
        return _bring_outputs(context, run.job, box, line) and pulled
    except (Lost, Preempted, BoxFailed):
        # It was taken in the middle of it.
        return False


def kept(context: BoxContext, job_id: str) -> Path:
    """Return the folder of what is kept here of a job."""
    return context.local_dir / "jobs" / job_id


def _read(context: BoxContext, box: Box, line: StageLine) -> None:
    """Have a machine read the disk; if that fails it is switched off again."""
    if box.state != "running":
        line.doing(f"starting a machine to read the disk of {box.id}")
        box = power.start(context, box)
    context.screen.note(
        f"of {box.id} only its disk is left: a {box.offer.type} reads it, "
        f"{formatting.rate(box.offer.price)}, and goes"
    )
    try:
        if not _bring(context, box, line):
            raise OutputsHeld(
                f"what the disk of {box.id} holds could not all be brought here; it "
                "is kept",
                next="inv run once more, or inv fetch --rescue",
            )
    except OneboxError:
        context.close()
        # What came first is what the user has to hear of; the box has a deadline.
        with suppress(OneboxError):
            context.provider.stop(box)
        context.forget_look()
        raise


def _bring(context: BoxContext, box: Box, line: StageLine) -> bool:
    latest = client.latest(context)
    if latest is None or latest.job.startswith("image-"):
        return True
    job_id = latest.job
    run_history.seen(context, job_id, latest.record)
    run, record = run_history.read(context), context.store.record
    if run is not None and run.has(job_id) and not run.ended:
        line.doing(f"fetching what {box.id} has")
        client.bring_log(context, box, latest)
        here = _bring_outputs(context, job_id, box, line)
        return _bring_checkpoints(context, run, box, job_id) and here
    client.bring_log(context, box, latest)
    if not (record.fetched or record.discarded):
        context.screen.note(f"outputs of the earlier job {job_id} first")
        fetch.perform(context, started_by="run", partial=latest.state == "lost")
    return True


def _bring_checkpoints(context: BoxContext, run: Run, box: Box, job_id: str) -> bool:
    """Pull a job's checkpoints, unless those of a later attempt are here."""
    if job_id != run.job and checkpoints.pulls(context).latest(run.id) is not None:
        return True
    return last_pull(context, run, box, job_id)


def _bring_outputs(context: BoxContext, job_id: str, box: Box, line: StageLine) -> bool:
    """Keep the outputs of an attempt aside: they are not those of the run."""
    folder = kept(context, job_id)
    done: fetch_outputs.Fetched = context.resuming(
        lambda channel: fetch_outputs.fetch(
            channel,
            context.settings.fetch.outputs,
            folder / "outputs",
            folder / "outputs-memory",
            line.progress,
        ),
        box,
    )
    return not done.refused and not done.repositories
