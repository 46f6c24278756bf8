"""
Run a job on the node that Ray has chosen, with the same supervisor as on a box.

Ray starts the entry point, and gives it three seconds to end after SIGTERM. So the
supervisor is not its child. It stops the job, within the job's grace, as soon as the
entry point is gone, and then hands over the outputs.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from typing import Any, Dict, Tuple

from .. import processes
from ..box import BoxConfig
from ..box import read as read_file
from ..jobs import durable, exec, exit_record, job_state, metrics
from ..units import progress as unit_progress
from ..units.progress import Progress
from . import guarded, outbox
from .guarded import GuardedSupervisor, Pipes
from .outbox import Outbox
from .scratch import GivenPlan, Scratch, given
from .submission import DIED

# The file in which the driver of units tells how many packs it has handed over.
PACKS = "packs"
# In this file it tells what the units have used: these fields are those of the record.
USAGE = "usage.json"
# In this one it tells which outputs are not handed over.
LOST = "lost"
# What cannot be handed over is tried again for so many seconds.
SYNC = 10.0
# An order to stop a job that has waited for resources comes within so many seconds of
# its start.
EARLY = 0.3


def run() -> int:
    """Run the job that this entry point was given; return its exit code."""
    try:
        plan = given()
        scratch = Scratch(plan)
        box = scratch.prepare()
        folder = _make_outbox(plan)
        _prepare(box, plan, scratch)
    except (OSError, ValueError, KeyError) as error:
        sys.stderr.write("onebox: %s\n" % _why(error))
        return DIED
    code = guarded.run_apart(
        lambda pipes: _supervise(box, plan, scratch, folder, pipes)
    )
    if code == DIED and os.path.exists(scratch.path):
        where = (os.uname().nodename, scratch.work)
        text = "its outputs cannot be handed over; they are on node %s in %s" % where
        sys.stderr.write("onebox: %s\n" % text)
    if code >= 0:
        return code
    # The supervisor was killed, and nothing else would end its job.
    processes.send(signal.SIGKILL, job_state.strays(box, plan.job))
    sys.stderr.write("onebox: the supervisor of the job was killed\n")
    return DIED


def _make_outbox(plan: GivenPlan) -> str:
    """Create the folder of the job's output. Raises OSError, also if it is there."""
    if plan.storage:
        folder = os.path.join(plan.storage, "out")
    else:
        # Ray writes what the entry point prints to the log folder of the node.
        logs = os.path.dirname(os.readlink("/proc/self/fd/1"))
        folder = os.path.join(logs, "onebox", "%s-%s" % (plan.box, plan.job))
        os.makedirs(os.path.dirname(folder), mode=0o700, exist_ok=True)
    os.mkdir(folder, 0o700)
    return folder


def _prepare(box: BoxConfig, plan: GivenPlan, scratch: Scratch) -> None:
    directory = scratch.directory
    start = job_state.Start(0, "", time.time())
    durable.save_json(directory, "started.json", start._asdict())
    durable.save(directory, "log", b"")
    exit_record.prepare(directory)
    if plan.fields["units"]:
        unit_progress.prepare(directory, Progress(**plan.fields["units"]))


def _supervise(
    box: BoxConfig, plan: GivenPlan, scratch: Scratch, folder: str, pipes: Pipes
) -> None:
    """Run the job, and hand over all that it leaves."""
    job = plan.job_plan()
    if not plan.fields["units"]:
        # It may contain secrets. The tasks of units need it until their end.
        plan.forget()
    else:
        words = [sys.executable, scratch.agent, "ray-units", scratch.directory]
        words += [folder, plan.folder]
        job = job._replace(commands=[[os.fsencode(word) for word in words]])
    if pipes.is_orphan(EARLY):
        # It was stopped while it waited for resources.
        scratch.remove()
        return
    supervisor = _Supervisor(box, job, plan, folder, pipes)
    supervisor.run()
    is_sent, is_kept = supervisor.hand_over()
    record = exit_record.read(scratch.directory)
    if is_sent and not is_kept:
        scratch.remove()
    with contextlib.suppress(OSError):
        os.write(pipes.end, bytes([record.code if record and is_sent else DIED]))


class _Supervisor(GuardedSupervisor):
    """
    The supervisor of a job, which hands over its output.

    Args:
        folder: The outbox.
    """

    def __init__(
        self,
        box: BoxConfig,
        job: exec.JobPlan,
        plan: GivenPlan,
        folder: str,
        pipes: Pipes,
    ) -> None:
        super().__init__(box, job, box.path("jobs", plan.job), pipes)
        self.given = plan
        self.outbox = Outbox(folder, int(plan.fields["most"]), job.max_log)
        self.stop_at = time.monotonic() + float(plan.fields["seconds"])
        self.is_late = False

    def prepare(self) -> None:
        """Take over the directory, and open the log to read it too."""
        super().prepare()
        path = os.path.join(self.directory, "log")
        self.reading = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def tick(self, now: float) -> None:
        """Hand over what is new; stop the job if its time is over, or Ray stops it."""
        self.report()
        super().tick(now)
        if not self.is_late and now > self.stop_at:
            self.is_late = True
            self.stop()

    def cause_of(self, order: job_state.StopOrder) -> str:
        """Return the cause of the stop: "deadline" if the time is over, or "cancel"."""
        return "deadline" if self.is_late else "cancel"

    def report(self, **end: Any) -> bool:
        """
        Hand over the log, and the status; *end* is added to that.

        Return False if that fails, for example because the disk is full.
        """
        if self.given.fields["units"]:
            packs = read_file(os.path.join(self.directory, PACKS))
            self.outbox.packs = int(packs or b"0")
        # The driver of units only waits for them.
        alone = not self.given.fields["units"]
        sample = metrics.latest(self.directory) if alone else None
        status: Dict[str, Any] = {
            "beat": time.time(),
            "sample": sample._asdict() if sample else None,
            "units": unit_progress.read(self.directory),
            **end,
        }
        try:
            self.outbox.add_log(self.reading, has_ended=bool(end))
            self.outbox.write_status(status)
        except OSError:
            return False
        return True

    def hand_over(self) -> Tuple[bool, bool]:
        """
        Hand over the outputs and the exit record of a job that has ended.

        Return whether that succeeded, and whether outputs stay here, because they are
        too large or cannot be read.
        """
        record = exit_record.read(self.directory)
        lost = read_file(os.path.join(self.directory, LOST)).decode("utf-8", "replace")
        if not self.given.fields["units"]:
            lost = self._hand_over_outputs()
        if lost:
            where = (os.uname().nodename, self.box.work)
            lost = "%s; they are on node %s in %s" % (lost, *where)
        fields = record._asdict() if record else None
        usage = read_file(os.path.join(self.directory, USAGE))
        if fields and usage:
            fields.update(json.loads(usage))
        end = {"record": fields, "lost": lost}
        deadline = time.monotonic() + SYNC
        while not self.report(end=end):
            if time.monotonic() > deadline:
                return False, bool(lost)
            time.sleep(0.5)
        return True, bool(lost)

    def _hand_over_outputs(self) -> str:
        """Hand over what can be; return what is wrong with the rest, "" if nothing."""
        work = os.fsencode(self.box.work)
        try:
            found = outbox.outputs(work, self.given.fields["roots"])
            return outbox.without_some(self.outbox.add_pack(work, found), found)
        except OSError as error:
            return "the outputs cannot be handed over: %s" % _why(error)


def _why(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        where = "%s: " % error.filename if error.filename else ""
        return "%s%s" % (where, error.strerror)
    return repr(error)
