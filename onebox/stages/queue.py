"""
Let runs wait for a busy box, and start them in order, one at a time.

A run waits in its own process, and pushes and starts nothing before its turn: the files
of a running job are never changed, and the outputs of the run before are fetched first.
Its turn comes when it is the first in the queue, no other onebox command holds the lock
of the box, and no job runs there. It then keeps the lock until its process ends.
"""

from __future__ import annotations

import math
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.boxes import bring_up
from onebox.errors import Busy, ConnectionLost, Lost, Preempted, Throttled, Unclear
from onebox.jobs import remote_job
from onebox.stages import push
from onebox.store.box_store import BoxStore

if TYPE_CHECKING:
    from onebox.context import BoxContext
    from onebox.providers.values import Box
    from onebox.store.run_queue import WaitingRun

# How often a waiting run looks at the queue and the lock, which are local files.
POLL_SECONDS = 0.3
# How often it asks the box whether the job still runs; without a connection, the pauses
# grow up to the second number.
JOB_SECONDS = 2.0
LONGEST_PAUSE = 30.0


def lock_or_refuse(context: BoxContext) -> None:
    """
    Lock the box for a run that does not wait.

    Raises:
        Busy: Another onebox command holds the lock, or other runs wait for the box.
    """
    if context.store.locked:
        return
    context.lock()
    waiting = context.store.queue.runs()
    if waiting:
        context.store.unlock()
        raise Busy(
            f"{context.title} is busy: {describe(waiting)}", next=context.next_if_busy
        )


def wait_for_turn(context: BoxContext) -> None:
    """
    Wait until it is the turn of this run, and lock the box.

    If the box is free, nothing is printed.
    """
    if context.store.locked:
        return
    command, provider = context.invocation.command, context.settings.provider
    with context.store.queue.place(command, provider) as run:
        turn = _Turn(context, run)
        why = turn.why_not_yet()
        if not why:
            return
        context.chain.stage = "queue"
        context.screen.note(f"{turn.detail or why}; this run waits for its turn")
        with context.screen.stage("queue") as stage_line:
            stage_line.doing("reading the project's files")
            context.chain.queued_digest = push.digest(context)
            context.screen.note(
                "code and data are pushed then, as they are at that time"
            )
            while why:
                stage_line.doing(f"waiting: {why}")
                time.sleep(turn.pause)
                why = turn.why_not_yet()
            stage_line.end("", "it is the turn of this run")
    context.chain.stage = ""
    context.chain.turn_came = context.now()
    # Other commands have used the box meanwhile, and may have replaced it.
    context.choose_provider()
    context.boxes.refresh()


def describe(waiting: list[WaitingRun]) -> str:
    """Return a phrase with the number of runs that wait, and since when the first."""
    since = formatting.clock(waiting[0].since, time.time())
    if len(waiting) == 1:
        return f"1 run waits for it, since {since}"
    return f"{len(waiting)} runs wait for it, the first since {since}"


def of_project(context: BoxContext) -> dict[str, list[WaitingRun]]:
    """Return the runs that wait for the boxes of this project, by the box's name."""
    folders = sorted(context.store.directory.parent.glob("*/queue"))
    found = {
        folder.parent.name: BoxStore(folder.parent).queue.runs() for folder in folders
    }
    return {name: waiting for name, waiting in found.items() if waiting}


def print_waiting(context: BoxContext, *, one_name: bool) -> None:
    """Print the runs that wait for each box of this project, the next one first."""
    now = time.time()
    for name, waiting in of_project(context).items():
        if one_name and name != context.settings.name:
            continue
        since = formatting.clock(waiting[0].since, now)
        count = formatting.count(len(waiting), "run")
        title = context.title_of(name)
        context.screen.print(f"waiting for {title}: {count}, the first since {since}")
        for place, run in enumerate(waiting, 1):
            since = formatting.clock(run.since, now)
            command = formatting.path(run.command or "unknown")
            context.screen.print(
                f"    {place}. {command}   since {since}, process {run.pid}"
            )


def keeps_box(context: BoxContext) -> bool:
    """
    Return whether the box of this run stays for the next run in the queue.

    If so, a line says so. The box does not stay if the next run asks for another
    provider, or if more than half of the time until the deadline is over: the next run
    then creates a box with a deadline of its own.
    """
    waiting = context.store.queue.runs()
    if not waiting or waiting[0].provider != context.settings.provider:
        return False
    box = context.boxes.refresh()
    if box is None or box.state != "running":
        return False
    left = box.deadline - context.now() if box.deadline else math.inf
    if left < context.settings.limits.max_hours * 1800:
        return False
    price = formatting.rate(box.offer.hourly)
    detail = f"{box.id}, {price}: {describe(waiting)}"
    context.screen.print_stage("box", "kept", "kept", detail)
    return True


def note_changed_files(context: BoxContext) -> None:
    """Print a note if the pushed files differ from those when the run was queued."""
    queued, pushed = context.chain.queued_digest, context.chain.pushed_digest
    if queued and pushed and queued != pushed:
        context.screen.note(
            "code or data have changed while this run waited: it has the new files"
        )


class _Turn:
    """
    Finds out whether it is the turn of a run.

    *pause* is how many seconds to wait until the next look. *detail* names the command
    that uses the box, if a command was seen there.
    """

    def __init__(self, context: BoxContext, run: WaitingRun) -> None:
        self.pause = POLL_SECONDS
        self.detail = ""
        self._context = context
        self._run = run
        self._box: Box | None = None
        self._job = ""
        self._waited = False

    def why_not_yet(self) -> str:
        """Return why it is not the turn yet; "" if it is, and the box is locked."""
        why = self._look()
        self._waited = bool(why)
        return why

    def _look(self) -> str:
        context = self._context
        ahead = len(context.store.queue.ahead_of(self._run))
        if ahead:
            self.pause = POLL_SECONDS
            return f"{formatting.count(ahead, 'run')} before this one"
        if self._job and self._job_runs():
            return f"job {self._job} still runs on {context.title}"
        self.pause = POLL_SECONDS
        try:
            context.lock()
        except Busy as busy:
            self.detail = busy.message
            return "another onebox command uses the box"
        try:
            self._box = context.boxes.refresh()
        except (Unclear, Throttled):
            if not self._waited:
                raise
            # A run keeps its place while the network is down.
            context.store.unlock()
            self.pause = LONGEST_PAUSE
            return "the provider does not answer"
        if not self._job_runs():
            return ""
        # While the job runs, the lock is free for other commands.
        context.store.unlock()
        self.pause = JOB_SECONDS
        return f"job {self._job} still runs on {context.title}"

    def _job_runs(self) -> bool:
        """
        Return whether a job runs on the box.

        If the box does not answer now, the last answer counts. The channel stays open,
        which keeps the box from powering itself off between the end of the job and the
        turn of this run.
        """
        context, box = self._context, self._box
        if box is None or not bring_up.has_booted(context, box):
            return False
        ssh = context.ssh(box)
        try:
            latest = remote_job.status(ssh.channel())
            self._job = latest.job if latest.runs else ""
        except ConnectionLost:
            ssh.close(force=True)
            self.pause = min(self.pause * 2, LONGEST_PAUSE)
            try:
                # Without a network, the provider does not answer either.
                with suppress(Unclear, Throttled):
                    context.boxes.check_runs(box)
            except (Lost, Preempted):
                self._job = ""
        return bool(self._job)
