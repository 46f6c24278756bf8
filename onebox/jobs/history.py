"""What is kept here of the jobs that have run, whatever has become of their boxes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onebox import formatting
from onebox.jobs import follow
from onebox.remote.answers import ExitRecord
from onebox.store.box_store import BoxStore

if TYPE_CHECKING:
    from onebox.context import BoxContext

# As they are made: what was run later comes later.
JOB = re.compile(r"\d{8}-\d{6}-[0-9a-f]{4}")


@dataclass(frozen=True)
class FinishedJob:
    """A job that has run: its log, and its receipt if there is one."""

    job: str
    log: Path
    paper: Mapping[str, Any] | None

    @property
    def code(self) -> int | None:
        """Return its exit code, None if nobody knows it."""
        return None if self.paper is None else int(self.paper["exit"])

    @property
    def spent(self) -> str:
        """Say how long it took, if that is known."""
        return "" if self.paper is None else formatting.seconds(self.paper["seconds"])

    @property
    def how(self) -> str:
        """Say how it ended."""
        if self.paper is None:
            return "how it ended is not known"
        peak = self.paper.get("peak") or {}
        return follow.describe(
            ExitRecord(
                self.job,
                self.paper["exit"],
                self.paper["cause"],
                signal=self.paper.get("signal"),
                memory_peak=peak.get("memory"),
            )
        )


def last(context: BoxContext, *, whatever_name: bool = False) -> FinishedJob | None:
    """Return the latest job whose log is here, of this box's name or of any."""
    folder = context.local_dir / "jobs"
    jobs = [path for path in folder.glob("*/log") if JOB.fullmatch(path.parent.name)]
    others = set() if whatever_name else _at_others(context)
    for log in sorted(jobs, reverse=True):
        job, paper = log.parent.name, _receipt(log.with_name("receipt.json"))
        # Receipts of earlier versions do not say whose they are.
        name = paper["box"].get("name") if paper is not None else None
        ours = name in (None, context.settings.name) and job not in others
        if whatever_name or ours:
            return FinishedJob(job, log, paper)
    return None


def _at_others(context: BoxContext) -> set[str]:
    """Return the jobs that this project's other boxes have had last."""
    mine = context.store.directory
    return {
        BoxStore(directory).record.job
        for directory in mine.parent.glob("*")
        if directory != mine
    }


def _receipt(path: Path) -> dict[str, Any] | None:
    # A damaged one costs the words, not the log.
    with suppress(OSError, ValueError, TypeError, KeyError):
        paper: dict[str, Any] = json.loads(path.read_bytes())
        if {"exit", "cause", "seconds"} <= paper.keys() and paper["box"] is not None:
            return {**paper, "box": dict(paper["box"])}
    return None
