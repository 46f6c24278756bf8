"""The finished jobs of a project: logs and receipts on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from onebox import formatting
from onebox.context import BoxContext
from onebox.jobs import follow, receipt
from onebox.jobs.receipt import Receipt
from onebox.remote.job_answers import ExitRecord
from onebox.store.box_store import BoxStore, box_folders
from onebox.store.paths import JOB


@dataclass(frozen=True)
class FinishedJob:
    """A job with its log, and with its receipt if there is one."""

    job: str
    log: Path
    receipt: Receipt | None

    @property
    def code(self) -> int | None:
        """Return the job's exit code, None if it is unknown."""
        return None if self.receipt is None else self.receipt.exit

    @property
    def duration(self) -> str:
        """Return how long the job ran, "" if that is unknown."""
        return "" if self.receipt is None else formatting.seconds(self.receipt.seconds)

    @property
    def ending(self) -> str:
        """Return how the job ended, in a few words."""
        if self.receipt is None:
            return "its outcome is unknown"
        counts = self.receipt.units
        return follow.outcome(
            ExitRecord(
                self.job,
                self.receipt.exit,
                self.receipt.cause,
                signal=self.receipt.signal,
                memory_peak=self.receipt.peak.memory,
                units=None if counts is None else counts.as_progress,
            )
        )


def latest(context: BoxContext, *, whatever_name: bool = False) -> FinishedJob | None:
    """
    Return the latest job whose log is on this machine, None if there is none.

    Args:
        whatever_name: Also consider the jobs of this project's other boxes.
    """
    folder = context.local_dir / "jobs"
    logs = [path for path in folder.glob("*/log") if JOB.fullmatch(path.parent.name)]
    others = set() if whatever_name else _jobs_of_other_boxes(context)
    for log in sorted(logs, reverse=True):
        job = log.parent.name
        job_receipt = receipt.read(log.with_name(receipt.FILE))
        name = None if job_receipt is None else job_receipt.box.name
        is_ours = name in (None, context.settings.name) and job not in others
        if whatever_name or is_ours:
            return FinishedJob(job, log, job_receipt)
    return None


def find(context: BoxContext, job: str) -> FinishedJob | None:
    """Return the job *job* if its log is on this machine, else None."""
    log = context.job_dir(job) / "log"
    if not log.is_file():
        return None
    return FinishedJob(job, log, receipt.read(log.with_name(receipt.FILE)))


def _jobs_of_other_boxes(context: BoxContext) -> set[str]:
    """Return the ids of the latest jobs of this project's other boxes."""
    own = context.store.directory
    return {
        BoxStore(directory).record.job
        for directory in box_folders(own.parent)
        if directory != own
    }
