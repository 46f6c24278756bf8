"""The supervisor of a job on a node of a cluster, which did not start there itself."""

from __future__ import annotations

import json
import os
import time
from typing import Tuple

from .. import processes
from ..box import BoxConfig, replace_file
from . import exec, job_state
from .supervisor import JobSupervisor


class NodeSupervisor(JobSupervisor):
    """
    The supervisor of a job, or of a part of it, whose directory exists.

    No process waits for its start.

    Args:
        directory: The directory of the job or of the part.

        keep: The descriptors that stay open, besides those of the supervisor.
    """

    def __init__(
        self,
        box: BoxConfig,
        plan: exec.JobPlan,
        directory: str,
        keep: Tuple[int, ...] = (),
    ) -> None:
        super().__init__(box, plan, os.open(os.devnull, os.O_WRONLY), -1)
        self.directory = directory
        self.keep = keep

    def prepare(self) -> None:
        """Take over the directory, which was prepared before."""
        trouble = os.path.join(self.directory, "trouble")
        exec.leave_connection((self.ready, *self.keep), trouble)
        self.wake = processes.wake_on_signals()
        log = os.path.join(self.directory, "log")
        self.log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        start = job_state.read_start(self.directory)
        at = max(time.time(), start.at if start else 0.0)
        started = job_state.Start(os.getpid(), "", at)._asdict()
        path = os.path.join(self.directory, "started.json")
        replace_file(path, json.dumps(started).encode("ascii"), sync=True)
