"""Ray as the engine of a box; see `onebox.agent.jobs.engine`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Dict

from ..box import BoxConfig, is_locked
from ..box import read as read_file
from ..jobs import job_state, log_stream
from ..jobs.engine import Engine, JobState
from ..jobs.exec import JobPlan
from ..protocol import Channel, Refused
from . import package, submission, watch
from .jobs_api import RayError, Unreachable

# A process that watches a job has so many seconds to take its lock.
STARTING = 3.0
# One process of the agent starts it again after so many failures, and then gives up.
MOST_FAILURES = 5
# A job that was started so many seconds ago does not count as waiting.
SOON = 5.0
# A job has so many seconds to end after its grace, before it is given up.
LATE = watch.LATE + 60.0


class Ray(Engine):
    """Runs each job as a job of Ray, and units as its tasks."""

    def __init__(self) -> None:
        self._started: Dict[str, float] = {}
        # The size of what failed processes have written, and how many there were.
        self._trouble = self._failures = 0

    def prepare(self, box: BoxConfig, plan: JobPlan) -> None:
        """Create the directory of a new job. Raises `Refused` if Ray cannot take it."""
        try:
            submission.prepare(box, plan)
        except package.TooLarge as error:
            raise Refused("package", str(error)) from error

    def submit(self, box: BoxConfig, job: str) -> None:
        """Submit a job, unless Ray has it already. Raises `Refused`."""
        try:
            submission.submit(box, job)
        except Unreachable as error:
            # Ray may have it. The process that watches it submits it again.
            if not os.path.exists(box.path("jobs", job, submission.TRIED)):
                submission.discard(box, job)
                text = "the Ray cluster does not answer: %s" % error
                raise Refused("start", text) from error
        except RayError as error:
            submission.discard(box, job)
            raise Refused("start", "Ray refuses the job: %s" % error) from error
        self._watch(box, job)

    def state(self, box: BoxConfig, job: str) -> JobState:
        """Return the state of a job without an exit record."""
        lost = read_file(box.path("jobs", job, watch.LOST))
        if lost:
            return JobState("lost", why=str(json.loads(lost)["why"]))
        if not self._watch(box, job):
            trouble = read_file(box.path("jobs", job, "trouble")).splitlines()
            why = trouble[-1].decode("utf-8", "replace") if trouble else "it is unknown"
            return JobState("lost", why="nothing can watch it here: %s" % why)
        return JobState("running")

    def waiting(self, box: BoxConfig, job: str) -> str:
        """Return why a job has not started yet, "" if it has."""
        if watch.is_over(box.path("jobs", job)):
            return ""
        start = job_state.read_start(box.path("jobs", job))
        if start and time.time() - start.at < SOON:
            return ""
        found = read_file(box.path("jobs", job, watch.WAITING))
        return found.decode("utf-8", "replace")

    def id(self, box: BoxConfig, job: str) -> str:
        """Return the id of a job in Ray."""
        return submission.job_name(box.id, job)

    def terminate(self, box: BoxConfig, job: str) -> None:
        """Let the process that watches a job carry out the order to stop it."""
        self._watch(box, job)

    def wait_until_ended(self, channel: Channel, box: BoxConfig, job: str) -> None:
        """Wait until a job has ended after `terminate`."""
        end = time.monotonic() + job_state.grace(box, job) + LATE
        while job_state.read(box, job).state == "running":
            log_stream.listen(channel, box, 0.2)
            if time.monotonic() > end:
                why = self.waiting(box, job) or "it does not end"
                raise Refused("scheduler", "Ray cannot stop it now: %s" % why)

    def kill(self, box: BoxConfig, job: str) -> None:
        """Make Ray end a job. Raises `Refused`."""
        cluster = submission.cluster_of(box)
        try:
            cluster.stop(submission.job_name(box.id, job))
        except RayError as error:
            raise Refused("scheduler", "Ray cannot stop it now: %s" % error) from error
        finally:
            cluster.close()

    def _watch(self, box: BoxConfig, job: str) -> bool:
        """
        Start a process that watches a job, unless there is one.

        Return False if it has ended too often.
        """
        directory = box.path("jobs", job)
        now = time.monotonic()
        young = now - self._started.get(job, -STARTING) < STARTING
        if watch.is_over(directory) or young:
            return True
        if is_locked(os.path.join(directory, watch.LOCK)):
            return True
        trouble_size = _size(os.path.join(directory, "trouble"))
        # One that was killed has written nothing.
        if trouble_size > self._trouble:
            self._trouble = trouble_size
            self._failures += 1
        if self._failures > MOST_FAILURES:
            return False
        self._started[job] = now
        python, agent = sys.executable or "python3", os.path.abspath(sys.argv[0])
        with open(os.path.join(directory, "trouble"), "ab") as trouble:
            # It outlives this process, and is not waited for.
            subprocess.Popen(
                [python, "-I", "-S", agent, "ray-watch", directory],
                stdin=subprocess.DEVNULL,
                stdout=trouble,
                stderr=trouble,
                start_new_session=True,
                cwd="/",
            )
        return True


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
