"""What `inv status` tells of a box and its latest job."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BoxJob:
    """
    The latest job of a box; None means unknown, or that no job has run.

    Attributes:
        id: Its id.

        state: "none", "running", "succeeded", "failed", "cancelled", "ended" (with
            code 0, but not by itself), or "unknown".

        text: The state in words, with the reason.

        command: Its command, None if another machine or user has started it.

        started: When it started (epoch seconds).

        seconds: How long it has run.

        exit: Its exit code, None while it runs.

        advice: What to change if it had too little memory, else "".

        engine_id: Its id in Slurm or Ray, as their own commands take it; "" elsewhere.
    """

    id: str | None
    state: str
    text: str
    command: str | None = None
    started: float | None = None
    seconds: float | None = None
    exit: int | None = None
    advice: str = ""
    engine_id: str = ""


@dataclass(frozen=True, repr=False)
class BoxStatus:
    """
    A box of this project with its cost, deadline and job; None means unknown.

    Attributes:
        name: The name of the box: that of `--name`, or "main".

        id: Its id.

        provider: Where it is.

        is_builder: Whether the box only builds an image.

        state: "starting", "running", "stopping", "stopped", or "unknown" if the
            provider does not answer.

        size, type: The size that was asked for, and the machine type.

        hourly_usd: The price of all parts in USD an hour.

        created: When it was created (epoch seconds).

        deadline: When it powers itself off (epoch seconds), None if it is off.

        job: Its latest job.

        outputs: "fetched" or "not fetched" for those of the latest job, None if there
            are none yet, or if nothing is recorded.

        error: Why the provider does not answer, else "".

        identity: What its jobs may act as in the cloud, None for nothing.
    """

    name: str
    id: str
    provider: str
    is_builder: bool
    state: str
    size: str | None
    type: str | None
    hourly_usd: float | None
    created: float | None
    deadline: float | None
    job: BoxJob
    outputs: str | None
    error: str = ""
    identity: str | None = None

    def __repr__(self) -> str:
        what = f"{self.state}, {self.size} on {self.provider}"
        job = " ".join(filter(None, [self.job.id, self.job.text]))
        return f"<BoxStatus {self.name}: {what}, job {job}>"
