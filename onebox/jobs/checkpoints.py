"""Bring checkpoints home while a job runs, and put them back where it goes on."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.agent.files import manifest
from onebox.errors import Busy, ConnectionLost, OneboxError
from onebox.providers.base import Box
from onebox.remote.channel import AgentChannel
from onebox.remote.connection import SSHConnection
from onebox.transfer import push_files
from onebox.transfer.checkpoint_store import Pull, Pulls

if TYPE_CHECKING:
    from onebox.context import BoxContext

# How long a pull under way may take to end when the job has.
ENDING_SECONDS = 3.0


def pulls(context: BoxContext) -> Pulls:
    """Return what has been pulled of this box name's jobs."""
    name = context.settings.name
    return Pulls(context.local_dir / "checkpoints" / name)


def take(
    context: BoxContext,
    channel: AgentChannel,
    *,
    run: str,
    job: str,
    box: Box,
    wait: float = 0.0,
) -> Pull | None:
    """Bring the checkpoints here as they are now; see `Pulls.take`."""
    roots = context.settings.fetch.checkpoints
    return pulls(context).take(
        channel, roots, _silent, run=run, job=job, box=box.id, wait=wait
    )


@contextmanager
def coming_home(
    context: BoxContext, box: Box, *, run: str, job: str
) -> Iterator[_Visitor | None]:
    """Pull checkpoints every `[fetch] every`, for as long as the body runs."""
    if not context.settings.fetch.checkpoints:
        yield None
        return
    visitor = _Visitor(context, context.ssh(box), run=run, job=job)
    visitor.start()
    try:
        yield visitor
    finally:
        visitor.stop()
        visitor.speak()


def put_back(context: BoxContext, box: Box, run: str) -> Pull | None:
    """
    Put the newest pull of a run where its next attempt looks for it.

    Returns which one it was, None if there is none: then the job starts from its
    beginning.
    """
    mine = pulls(context)
    pull = mine.latest(run)
    if pull is None:
        return None
    files = mine.folder(pull)
    paths = manifest.below(os.fsencode(files), b"")
    index = mine.directory / "memory" / "restored.index"
    with context.screen.stage("restore") as line:
        context.resuming(
            lambda channel: push_files.push(
                channel, files, paths, index, line.progress, "restored"
            ),
            box,
        )
        line.end("", describe(pull))
    return pull


def describe(pull: Pull) -> str:
    """Say what a pull holds, and when that was so."""
    amount = (
        f"{formatting.count(pull.files, 'file')}, {formatting.byte_count(pull.bytes)}"
    )
    return f"checkpoints of {_clock(pull.at)}: {amount}"


class _Visitor(threading.Thread):
    """
    Pulls again and again, over connections of its own beside the log's.

    What it has to say waits until the thread that owns the screen lets it speak.
    """

    def __init__(
        self, context: BoxContext, ssh: SSHConnection, *, run: str, job: str
    ) -> None:
        super().__init__(daemon=True)
        self._session = context
        self._ssh = ssh
        self._of_run = run
        self._job = job
        self._over = threading.Event()
        self._channel: AgentChannel | None = None
        self._sayings: list[str] = []
        self._said: set[str] = set()
        self.last: Pull | None = None

    def run(self) -> None:
        """Pull, wait, and pull again."""
        every = pause = self._session.settings.fetch.every
        while not self._over.wait(pause):
            began = time.monotonic()
            try:
                # Of a box that is gone the log's own connection tells; and another
                # terminal's pull is as good as ours.
                with suppress(ConnectionLost, Busy):
                    self._visit()
            except OneboxError as error:
                self._sayings.append(f"checkpoints stay as they were: {error.message}")
            # A pull that takes its time must not leave the job no bandwidth.
            pause = max(every - (time.monotonic() - began), every / 4)

    def stop(self) -> None:
        """End, also in the middle of a pull: what has come is not sent again."""
        self._over.set()
        channel = self._channel
        if channel is not None and self.is_alive():
            channel.process.kill()
        self.join(ENDING_SECONDS)

    def speak(self) -> None:
        """Say what went wrong, each thing once."""
        while self._sayings:
            text = self._sayings.pop(0)
            if text not in self._said:
                self._said.add(text)
                self._session.screen.warn(text)

    @property
    def footer(self) -> str:
        """What to say of it in the line below the job's output."""
        return f"checkpoints {_clock(self.last.at)}" if self.last else ""

    def _visit(self) -> None:
        with self._ssh.another() as channel:
            self._channel = channel
            try:
                if not self._over.is_set():
                    pull = take(
                        self._session,
                        channel,
                        run=self._of_run,
                        job=self._job,
                        box=self._ssh.box,
                    )
                    self.last = pull or self.last
            finally:
                self._channel = None


def _clock(moment: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(moment))


def _silent(files: int, of_files: int, done: int, total: int) -> None:
    return
