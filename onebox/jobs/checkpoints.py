"""Pull checkpoints while a job runs, and push them back for its next attempt."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from onebox import formatting
from onebox.agent.files import manifest
from onebox.context import BoxContext
from onebox.errors import Busy, ConnectionLost, OneboxError
from onebox.project_files import checkpoint_paths
from onebox.providers.values import Box
from onebox.remote.channel import AgentChannel
from onebox.remote.connection import SSHConnection
from onebox.transfer import push_files
from onebox.transfer.checkpoint_store import CheckpointStore, Pull

# When the job has ended, onebox waits this long for a pull in progress to stop.
STOP_SECONDS = 3.0


def pulls(context: BoxContext) -> CheckpointStore:
    """Return the store that holds the checkpoints of all jobs of this box name."""
    name = context.settings.name
    return CheckpointStore(context.local_dir / "checkpoints" / name)


def take(
    context: BoxContext,
    channel: AgentChannel,
    *,
    run: str,
    job: str,
    box: Box,
    wait: float = 0.0,
) -> Pull | None:
    """
    Pull the checkpoints that are on the box now, and return the run's newest pull.

    Return None if the run has no pull. `CheckpointStore.pull` has the details.
    """
    roots = checkpoint_paths(context)
    return pulls(context).pull(
        channel, roots, _no_progress, run=run, job=job, box=box.id, wait=wait
    )


@contextmanager
def pulling(
    context: BoxContext, box: Box, *, run: str, job: str
) -> Iterator[CheckpointPuller | None]:
    """
    Pull the checkpoints every `[fetch] every` seconds while the `with` block runs.

    Yield the thread that pulls. Yield None if no checkpoints are configured.
    """
    if not checkpoint_paths(context):
        yield None
        return
    puller = CheckpointPuller(context, context.ssh(box), run=run, job=job)
    puller.start()
    try:
        yield puller
    finally:
        puller.stop()
        puller.show_warnings()


def restore(context: BoxContext, box: Box, run: str) -> Pull | None:
    """
    Push the newest checkpoints of a run to the box of its next attempt.

    Returns:
        The `Pull` that fetched these checkpoints. None means that the run has no
        checkpoints, so the job starts from its beginning.
    """
    store = pulls(context)
    pull = store.latest(run)
    if pull is None:
        return None
    files = store.folder(pull)
    paths = manifest.below(os.fsencode(files), b"")
    index = store.directory / "memory" / "restored.index"
    with context.screen.stage("restore") as stage_line:
        context.call_resuming(
            lambda channel: push_files.push(
                channel, files, paths, index, stage_line.progress, "restored"
            ),
            box,
        )
        stage_line.end("", describe(pull))
    return pull


def describe(pull: Pull) -> str:
    """Return a phrase with a pull's time, its number of files and their size."""
    amount = (
        f"{formatting.count(pull.files, 'file')}, {formatting.byte_count(pull.bytes)}"
    )
    return f"checkpoints of {_clock(pull.seen_at)}: {amount}"


class CheckpointPuller(threading.Thread):
    """
    A thread that pulls a job's checkpoints at intervals, over its own connections.

    Only the main thread may print, so warnings wait for `show_warnings`.
    """

    def __init__(
        self, context: BoxContext, ssh: SSHConnection, *, run: str, job: str
    ) -> None:
        super().__init__(daemon=True)
        self._context = context
        self._ssh = ssh
        # The attribute is not named `_run`, because it could be taken for the method
        # `run`, which the thread executes.
        self._run_id = run
        self._job = job
        self._stopped = threading.Event()
        self._channel: AgentChannel | None = None
        self._warnings: list[str] = []
        self._shown: set[str] = set()
        self.last: Pull | None = None

    def run(self) -> None:
        """Pull the checkpoints at intervals until `stop` is called."""
        interval = pause = self._context.settings.fetch.every
        while not self._stopped.wait(pause):
            began = time.monotonic()
            try:
                # ConnectionLost and Busy are ignored. If the box is gone, the
                # connection that reads the log reports it. If the store is busy,
                # another terminal pulls the same checkpoints.
                with suppress(ConnectionLost, Busy):
                    self._pull()
            except OneboxError as error:
                self._warnings.append(f"checkpoints are not updated: {error.message}")
            # The pause is at least a quarter of the interval, even if a pull takes
            # longer than the interval, so that the job has some time without competing
            # traffic.
            pause = max(interval - (time.monotonic() - began), interval / 4)

    def stop(self) -> None:
        """
        Stop the thread, even during a pull.

        The next pull continues the download of an interrupted one.
        """
        self._stopped.set()
        channel = self._channel
        if channel is not None and self.is_alive():
            channel.process.kill()
        self.join(STOP_SECONDS)

    def show_warnings(self) -> None:
        """Print the warnings that have come so far; print equal warnings only once."""
        while self._warnings:
            text = self._warnings.pop(0)
            if text not in self._shown:
                self._shown.add(text)
                self._context.screen.warn(text)

    @property
    def footer(self) -> str:
        """
        Return a text with the time of the last pull, for the footer of the job.

        Return "" if there is no pull yet.
        """
        return f"checkpoints {_clock(self.last.seen_at)}" if self.last else ""

    def _pull(self) -> None:
        with self._ssh.open_separate_channel() as channel:
            self._channel = channel
            try:
                if not self._stopped.is_set():
                    pull = take(
                        self._context,
                        channel,
                        run=self._run_id,
                        job=self._job,
                        box=self._ssh.box,
                    )
                    self.last = pull or self.last
            finally:
                self._channel = None


def _clock(moment: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(moment))


def _no_progress(files: int, of_files: int, done: int, total: int) -> None:
    return
