"""Hold what a chain of stages has done with its box so far."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onebox.providers.values import Offer

if TYPE_CHECKING:
    from onebox.jobs.receipt import Receipt
    from onebox.providers.object_stores import ObjectStores
    from onebox.transfer.data_listing import DataListing
    from onebox.transfer.fetch_outputs import Fetched
    from onebox.units.job import UnitJob


@dataclass
class Announced:
    """
    What this command has announced so far.

    Attributes:
        title_printed: Whether the first line, which has no prices, has been printed.

        boxes: The number of the box whose headline was printed last (the first box
            of the command is 1), 0 before the first headline.

        offer: The offer that was announced last, None before the first announcement.

        dearer_accepted: Whether the user has agreed to a dearer offer.

        clock_warned: Whether the warning about this machine's clock has been printed.
    """

    title_printed: bool = False
    boxes: int = 0
    offer: Offer | None = None
    dearer_accepted: bool = False
    clock_warned: bool = False


@dataclass
class Notice:
    """
    A run or a job that this command follows and whose end it has to notify.

    Attributes:
        began: When the command began to do so, in seconds of `time.monotonic`.

        job: The id of the job that has ended last, "" before the first one has.

        claimed: Whether this command posts to [notify] url; if not, the box does.

        ended: Whether the job is known to have ended.
    """

    began: float
    job: str = ""
    claimed: bool = False
    ended: bool = False


@dataclass
class ChainState:
    """
    The progress of one command line on one box.

    Attributes:
        results: The results of the stages that have run, by stage and arguments.

        stage: The name of the stage under way, or of the last stage.

        stage_seconds: The seconds that each stage took, by the stage's name.

        announced: What the user has been shown of the box and its price.

        warned: The warnings that were printed; they are not printed again.

        would_run: With `--dry`, the user's own stages that would run.

        planned: The stages whose plan was printed; it is not printed again.

        files_checked: Whether code and data have been checked, which happens before a
            box is created.

        ended_boxes: The number of boxes that were removed, or that a new box replaces.

        started_jobs: The number of jobs that were started.

        job_state: "" before the job, "starting" while the box is asked to start the
            job, "started" after that.

        job_waits: Why a scheduler had not started the job when it was last followed, ""
            if it had.

        turn_came: When the turn of this run came (epoch seconds by the provider's
            clock), 0.0 if it did not wait in the queue.

        queued_digest: The digest of the code and data when the run began to wait.

        superseded: The ids of preempted boxes that another box has replaced, but whose
            disks stay for now.

        spent_before: The cost of the run's earlier attempts in USD, None if unknown.

        pushed_digest: The digest of the code and data that were pushed.

        data: What the addresses in [push] data hold; None until it is asked for.

        stores: The object stores that they are in.

        fetched: The result of the latest fetch.

        fetched_folder: The folder of the latest fetch.

        fetched_to: The local names of its outputs, for messages.

        fetched_earlier_job: The id of a job that an earlier command started, if this
            command has fetched its outputs; else "".

        units: The units that `map` runs; None for another job.

        part: The units of this box, if other boxes run other units of the same call of
            `map`; None for any other command line.

        left: What an interrupted `map` on several boxes leaves, one line each.

        units_without_result: How many units of the job that was fetched last are not
            done by the files here, 0 for another job.

        receipt: The receipt of the job.

        notice: The run that is followed; None if there is none.
    """

    fetched_folder: Path
    results: dict[Any, Any] = field(default_factory=dict)
    fetched_to: str = ""
    stage: str = ""
    stage_seconds: dict[str, float] = field(default_factory=dict)
    announced: Announced = field(default_factory=Announced)
    warned: set[str] = field(default_factory=set)
    would_run: set[str] = field(default_factory=set)
    planned: set[str] = field(default_factory=set)
    files_checked: bool = False
    ended_boxes: int = 0
    started_jobs: int = 0
    job_state: str = ""
    job_waits: str = ""
    turn_came: float = 0.0
    queued_digest: str = ""
    superseded: set[str] = field(default_factory=set)
    spent_before: float | None = 0.0
    pushed_digest: str = ""
    data: DataListing | None = None
    stores: ObjectStores | None = None
    fetched: Fetched | None = None
    fetched_earlier_job: str = ""
    units: UnitJob | None = None
    part: UnitJob | None = None
    left: tuple[str, ...] = ()
    units_without_result: int = 0
    receipt: Receipt | None = None
    notice: Notice | None = None

    @property
    def task(self) -> str:
        """Return the name of the task that runs the job: "run" or "map"."""
        return "run" if self.units is None else "map"

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time that the body takes to the time of the stage."""
        began = time.monotonic()
        self.stage = stage
        try:
            yield
        finally:
            spent = self.stage_seconds.get(stage, 0) + time.monotonic() - began
            self.stage_seconds[stage] = spent
