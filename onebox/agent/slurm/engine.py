"""Slurm as the engine of a box; see `onebox.agent.jobs.engine`."""

from __future__ import annotations

from ..box import BoxConfig
from ..jobs.engine import Engine, JobState
from ..jobs.exec import JobPlan
from ..protocol import Channel
from . import queue_state, stop, submitted


class Slurm(Engine):
    """Runs each job as a job of Slurm, and units as a job array."""

    def prepare(self, box: BoxConfig, plan: JobPlan) -> None:
        """Create the directory of a new job."""
        submitted.prepare(box, plan)

    def submit(self, box: BoxConfig, job: str) -> None:
        """Submit a job, unless Slurm has it already. Raises `Refused`."""
        submitted.submit(box, job)

    def state(self, box: BoxConfig, job: str) -> JobState:
        """Return the state of a job without an exit record."""
        return queue_state.read(box, job)

    def waiting(self, box: BoxConfig, job: str) -> str:
        """Return why a job waits in the queue, "" if it does not."""
        return queue_state.waiting(box, job)

    def id(self, box: BoxConfig, job: str) -> str:
        """Return the id of a job in Slurm, "" if it is unknown."""
        return submitted.slurm_id(box.path("jobs", job))

    def terminate(self, box: BoxConfig, job: str) -> None:
        """Send SIGTERM to a job, or take it out of the queue. Raises `Refused`."""
        stop.terminate(box, job)

    def wait_until_ended(self, channel: Channel, box: BoxConfig, job: str) -> None:
        """Wait until a job has ended; kill it if it does not end."""
        stop.wait_until_ended(channel, box, job)

    def kill(self, box: BoxConfig, job: str) -> None:
        """Make Slurm end a job, with all its processes. Raises `Refused`."""
        stop.kill(box, job)
