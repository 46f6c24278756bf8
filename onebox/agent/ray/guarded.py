"""
Run a supervisor apart from the process that Ray has started, and stop with it.

Ray kills its own processes, and their children, without a grace. So the supervisor is
no child of them. Two pipes show each of both sides the end of the other one.
"""

from __future__ import annotations

import os
import select
import sys
from typing import Callable, NamedTuple

from ..box import BoxConfig
from ..jobs import exec, job_state
from ..jobs.node_supervisor import NodeSupervisor


class Pipes(NamedTuple):
    """
    What the supervisor has of the pipes.

    *parent* becomes readable when the process that Ray has started is gone. To *end*,
    the supervisor writes the exit code of the job, as its last step.
    """

    parent: int
    end: int

    def is_orphan(self, seconds: float = 0.0) -> bool:
        """Return whether the process that Ray has started is gone; wait for that."""
        return bool(select.select([self.parent], [], [], seconds)[0])


def run_apart(supervise: Callable[[Pipes], None]) -> int:
    """
    Run *supervise* in a process that is no child of this one, and wait for its end.

    Return the exit code that it has written, -1 if it ended without one.
    """
    parent, our_life = os.pipe()
    ends, end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            if os.fork() == 0:
                os.close(our_life)
                os.close(ends)
                supervise(Pipes(parent, end))
        finally:
            if sys.exc_info()[0] is not None:
                sys.excepthook(*sys.exc_info())
            os._exit(0)
    os.close(end)
    os.close(parent)
    os.waitpid(child, 0)
    code = os.read(ends, 1)
    return code[0] if code else -1


class GuardedSupervisor(NodeSupervisor):
    """A supervisor that stops its job when Ray has ended the process beside it."""

    def __init__(
        self, box: BoxConfig, job: exec.JobPlan, directory: str, pipes: Pipes
    ) -> None:
        super().__init__(box, job, directory, keep=pipes)
        self.pipes = pipes
        self.is_stopped = False

    def tick(self, now: float) -> None:
        """Stop the job if it is an orphan; then do what any supervisor does."""
        super().tick(now)
        if not self.is_stopped and self.pipes.is_orphan():
            self.is_stopped = True
            self.stop()

    def cause_of(self, order: job_state.StopOrder) -> str:
        """Return "cancel": Ray ends the process beside it when a user stops the job."""
        return "cancel"
