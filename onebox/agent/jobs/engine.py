"""
What runs the jobs of a box on other machines, such as the scheduler of a cluster.

Then the supervisor of a job is not a process of this machine. An engine starts and ends
jobs, and knows how they are. The entry point of the agent says how it is loaded, so
that agents of ordinary boxes do not import it.
"""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Callable, NamedTuple, Optional

from ..box import BoxConfig
from ..protocol import Channel
from .exit_record import StoredExitRecord

if TYPE_CHECKING:
    # The small agent, which has no jobs, does not contain this module.
    from .exec import JobPlan


# A job that is lost because it has never run has a reason that begins so.
NOT_STARTED = "it did not start: "


class JobState(NamedTuple):
    """
    The state of a job: "none", "running", "exited" or "lost".

    A job is "lost" if its supervisor died without an exit record, or if the exit record
    is damaged. *why* tells why a job is lost. *record* is set if the job exited.
    """

    state: str
    record: Optional[StoredExitRecord] = None
    why: str = ""


class Engine(abc.ABC):
    """Runs the jobs of a box on other machines."""

    @abc.abstractmethod
    def prepare(self, box: BoxConfig, plan: JobPlan) -> None:
        """Create the directory of a new job."""

    @abc.abstractmethod
    def submit(self, box: BoxConfig, job: str) -> None:
        """Start a job whose directory exists, unless that has been done before."""

    @abc.abstractmethod
    def state(self, box: BoxConfig, job: str) -> JobState:
        """Return the state of a job without an exit record."""

    @abc.abstractmethod
    def waiting(self, box: BoxConfig, job: str) -> str:
        """Return why a job has not started yet, "" if it has."""

    @abc.abstractmethod
    def id(self, box: BoxConfig, job: str) -> str:
        """Return what the scheduler calls a job, "" if that is unknown."""

    @abc.abstractmethod
    def terminate(self, box: BoxConfig, job: str) -> None:
        """Send SIGTERM to the supervisor of a job. Raises `Refused`."""

    @abc.abstractmethod
    def wait_until_ended(self, channel: Channel, box: BoxConfig, job: str) -> None:
        """Wait until a job has ended after `terminate`; kill it if it does not end."""

    @abc.abstractmethod
    def kill(self, box: BoxConfig, job: str) -> None:
        """End a job with all its processes. Raises `Refused`."""


_load: Optional[Callable[[str], Engine]] = None
_engine: Optional[Engine] = None


def use(load: Callable[[str], Engine]) -> None:
    """Set the function that returns the engine of a name, for boxes that have one."""
    global _load, _engine
    _load, _engine = load, None


def of(box: BoxConfig) -> Optional[Engine]:
    """Return the engine of a box, None if its jobs run on this machine."""
    global _engine
    if not box.engine or _load is None:
        return None
    if _engine is None:
        _engine = _load(box.engine)
    return _engine
