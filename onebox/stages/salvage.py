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
    from onebox.context import Session
    from onebox.ui.progress import StageLine

# A final pull waits so long for one of another terminal's to end.
OTHERS_SECONDS = 10.0


def is_disk(box: Box) -> bool:
    """Tell whether a box has no machine of the size that it was made with."""
    return box.disk_only or box.rescue


def finish(session: Session, box: Box, line: StageLine) -> None:
    """
    Bring here what the disk of a box holds, then remove the box.

    No job runs on the machine that it takes to read a disk: it is smaller than what
    was asked for.

    Raises:
        OutputsHeld: Not all of it could be brought here: the disk stays.
    """
    record = session.notebook.record
    if not session.line.owes_teardown(record.ours_to_end):
        # It was not the chain's to end; nor is the one in its place.
        session.line.box_wanted = True
    if record.box != box.id or record.job:
        _read(session, box, line)
    line.doing(f"removing {box.id}")
    lifecycle.remove(session, box)
    session.notebook.forget()
    session.look_again()


def last_pull(session: Session, run: Run, box: Box, job_id: str = "") -> bool:
    """
    Bring the checkpoints here once more, from a box that still answers.

    Tells whether they are here; a pull that has not ended may be in the way.

    Args:
        job_id: Whose they are; the run's last job's if "".
    """
    if not session.settings.fetch.checkpoints:
        return True
    try:
        session.resuming(
            lambda link: checkpoints.take(
                session,
                link,
                run=run.id,
                job=job_id or run.job,
                box=box,
                wait=OTHERS_SECONDS,
            ),
            box,
        )
    except Busy as error:
        session.screen.note(f"{box.id}: {error.message}")
        return False
    return True


def bring_all(session: Session, run: Run, box: Box, line: StageLine) -> bool:
    """Fetch checkpoints, outputs, the log's rest; tell whether all of it is here."""
    line.doing(f"fetching what {box.id} has")
    screen = session.screen
    try:
        pulled = last_pull(session, run, box)
        told = session.resuming(lambda link: client.status(link, run.job), box)
        client.bring_log(session, box, told, screen.output, screen.output_gone)
        return _bring_outputs(session, run.job, box, line) and pulled
    except (Lost, Preempted, BoxFailed):
        # It was taken in the middle of it.
        return False


def kept(session: Session, job_id: str) -> Path:
    """Return the folder of what is kept here of a job."""
    return session.local_dir / "jobs" / job_id


def _read(session: Session, box: Box, line: StageLine) -> None:
    """Have a machine read the disk; if that fails it is switched off again."""
    if box.state != "running":
        line.doing(f"starting a machine to read the disk of {box.id}")
        box = power.start(session, box)
    session.screen.note(
        f"of {box.id} only its disk is left: a {box.size.type} reads it, "
        f"{formatting.rate(box.size.price)}, and goes"
    )
    try:
        if not _bring(session, box, line):
            raise OutputsHeld(
                f"what the disk of {box.id} holds could not all be brought here; it "
                "is kept",
                next="inv run once more, or inv fetch --rescue",
            )
    except OneboxError:
        session.hang_up()
        # What came first is what the user has to hear of; the box has a deadline.
        with suppress(OneboxError):
            session.provider.stop(box)
        session.forget_look()
        raise


def _bring(session: Session, box: Box, line: StageLine) -> bool:
    latest = client.latest(session)
    if latest is None or latest.job.startswith("image-"):
        return True
    job_id = latest.job
    run_history.seen(session, job_id, latest.record)
    run, record = run_history.read(session), session.notebook.record
    if run is not None and run.has(job_id) and not run.ended:
        line.doing(f"fetching what {box.id} has")
        client.bring_log(session, box, latest)
        here = _bring_outputs(session, job_id, box, line)
        return _bring_checkpoints(session, run, box, job_id) and here
    client.bring_log(session, box, latest)
    if not (record.fetched or record.discarded):
        session.screen.note(f"outputs of the earlier job {job_id} first")
        fetch.perform(session, started_by="run", partial=latest.state == "lost")
    return True


def _bring_checkpoints(session: Session, run: Run, box: Box, job_id: str) -> bool:
    """Pull a job's checkpoints, unless those of a later attempt are here."""
    if job_id != run.job and checkpoints.pulls(session).latest(run.id) is not None:
        return True
    return last_pull(session, run, box, job_id)


def _bring_outputs(session: Session, job_id: str, box: Box, line: StageLine) -> bool:
    """Keep the outputs of an attempt aside: they are not those of the run."""
    folder = kept(session, job_id)
    done: fetch_outputs.Fetched = session.resuming(
        lambda link: fetch_outputs.fetch(
            link,
            session.settings.fetch.outputs,
            folder / "outputs",
            folder / "outputs-memory",
            line.progress,
        ),
        box,
    )
    return not done.refused and not done.repositories
