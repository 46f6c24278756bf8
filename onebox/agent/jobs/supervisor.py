"""
One process per job: it starts the job, outlives it, and writes how it ended.

The job writes straight into its log; the supervisor never touches a byte of it.
As long as the supervisor lives it holds a lock, which the kernel takes from it
in any kind of death: that lock, and no process id, says whether a job runs.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import sys
import time
from typing import Any, Dict, List, Optional

from .. import box, processes
from ..box import Box
from . import exec, exit_record, log_limit, metrics, state

TICK = 1.0
HEARTBEAT = 10.0
# What a job left behind has this long to end by itself, then to heed TERM.
SETTLE = 0.3
LEFTOVER_GRACE = 2.0
# Whoever has killed the job may tell us as well, when it gets to us on a busy box.
TOLD_AS_WELL = 1.0
# A process in the kernel's hands (a dead disk) cannot be killed: after this
# long the job counts as over all the same.
UNKILLABLE = 30.0
BALLAST = 64 << 20
FULL = 1 << 20


def detach(at: Box, plan: exec.Plan, guard: int) -> str:
    """
    Start a supervisor that outlives this process; return why it could not.

    The plan, with its secrets, reaches it by fork: no pipe, no file. It holds
    on to *guard*, the lock on starting jobs, until its job can be seen.
    """
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            if os.fork() == 0:
                _Supervisor(at, plan, write_end, guard).run()
        finally:
            # stderr is a file in the job's directory by now.
            if sys.exc_info()[0] is not None:
                sys.excepthook(*sys.exc_info())
            os._exit(0)
    os.close(write_end)
    os.waitpid(child, 0)
    with os.fdopen(read_end, "rb") as pipe:
        said = pipe.read()
    if said == b"ready":
        return ""
    return said.decode("utf-8", "replace") or "its supervisor died at once"


class _Supervisor:
    def __init__(self, at: Box, plan: exec.Plan, ready: int, guard: int) -> None:
        self.at = at
        self.plan = plan
        self.ready = ready
        self.guard = guard
        self.directory = at.path("jobs", plan.job)
        self.main = 0
        self.status: Optional[int] = None
        self.cause = ""
        self.kill_at = 0.0
        self.killed = False
        self.cpu_seconds = 0.0
        self.largest = 0
        self.ballast = self.given_back = 0
        self.heartbeat_at = 0.0

    def run(self) -> None:
        """Prepare, start the job, watch it to its end, publish the record."""
        try:
            self.prepare()
        except OSError as error:
            os.write(self.ready, str(error).encode("utf-8", "replace"))
            return
        self.started = time.time()
        self.started_boottime = box.boottime()
        self.oom_kills = metrics.oom_kills()
        self.reaper = exec.become_subreaper()
        processes.adjust_oom_score(-900)
        self.sampler = metrics.Sampler(self.directory, self.at.work, os.getpid())
        self.trimmer = log_limit.Trimmer(self.directory, self.plan.max_log)
        self.start()
        # Who asked for the job may have gone; the job runs all the same.
        with contextlib.suppress(BrokenPipeError):
            os.write(self.ready, b"ready")
        os.close(self.ready)
        self.watch()
        survivors = self.clean_up()
        exit_record.publish(self.directory, self.record(survivors))

    def prepare(self) -> None:
        """Make the job's directory; it gets its name when all is in place."""
        fresh = self.at.path("jobs", ".new-%d" % os.getpid())
        os.mkdir(fresh, 0o700)
        exec.leave_connection((self.ready, self.guard), os.path.join(fresh, "trouble"))
        self.listen()
        self.lock = os.open(
            os.path.join(fresh, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _save(fresh, "spec.json", self.plan.spec)
        at = state.next_start(self.at, time.time())
        now = {"pid": os.getpid(), "boot_id": self.at.boot_id, "at": at}
        _save(fresh, "started.json", now)
        self.log = os.open(
            os.path.join(fresh, "log"),
            os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC,
            0o600,
        )
        exit_record.prepare(fresh)
        self.take_ballast(fresh)
        os.rename(fresh, self.directory)
        exit_record.sync(os.path.dirname(self.directory))
        os.close(self.guard)

    def take_ballast(self, directory: str) -> None:
        """Take room that can be given back when the job has filled the disk."""
        size = min(BALLAST, box.disk(directory)[0] // 10)
        fd = os.open(
            os.path.join(directory, "ballast"),
            os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC,
            0o600,
        )
        try:
            if hasattr(os, "posix_fallocate") and size:
                os.posix_fallocate(fd, 0, size)
                self.ballast = size
        finally:
            os.close(fd)

    def listen(self) -> None:
        """Have signals arrive as bytes in a pipe that `wait` looks at."""
        self.wake, write_end = os.pipe()
        os.set_blocking(self.wake, False)
        os.set_blocking(write_end, False)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        for signum in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(signum, lambda *_: None)
        for signum in (signal.SIGINT, signal.SIGHUP):
            signal.signal(signum, signal.SIG_IGN)

    def start(self) -> None:
        """Start the job, in a session of its own."""
        everything = set(signal.valid_signals())
        signal.pthread_sigmask(signal.SIG_BLOCK, everything)
        self.main = os.fork()
        if self.main == 0:
            try:
                exec.become_job(self.plan, self.at.work, self.log)
            finally:
                os._exit(126)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, everything)
        os.close(self.log)
        # The secrets are the job's alone from here on.
        self.plan.environment.clear()

    def watch(self) -> None:
        """Wait for the job's main process to end; stop it when told to."""
        tick_at = 0.0
        while self.status is None:
            now = time.monotonic()
            if now >= tick_at:
                tick_at = now + TICK
                self.tick(now)
            end = min(tick_at, self.kill_at) if self.cause else tick_at
            self.wait(end - time.monotonic())
            if self.cause and time.monotonic() >= self.kill_at:
                self.killed = True
                processes.send(signal.SIGKILL, self.family())
                self.kill_at = time.monotonic() + 0.1
        if not self.cause and self.termed():
            # A box that goes off tells everybody, in any order: on the way to us
            # others of the job may end.
            end = time.monotonic() + TOLD_AS_WELL
            while not self.cause and time.monotonic() < end:
                self.wait(end - time.monotonic())

    def tick(self, now: float) -> None:
        """Show that we live, measure; give ballast back and trim if need be."""
        if now >= self.heartbeat_at:
            self.heartbeat_at = now + HEARTBEAT
            box.touch(os.path.join(self.directory, "heartbeat"))
        if min(box.disk(self.directory)[0], box.disk(self.at.work)[0]) < FULL:
            self.given_back += self.drop_ballast()
        self.trimmer.trim()
        self.sampler.take()

    def wait(self, seconds: float) -> None:
        """Sleep until something happens or the time is over; note what did."""
        select.select([self.wake], [], [], max(seconds, 0.0))
        try:
            signals = os.read(self.wake, 4096)
        except BlockingIOError:
            signals = b""
        self.reap()
        if signal.SIGTERM in signals and (self.status is None or self.termed()):
            self.stop()

    def termed(self) -> bool:
        """Tell whether TERM has ended the job; a shell says so in its own code."""
        return _code(self.status or 0) == 128 + signal.SIGTERM

    def reap(self) -> bool:
        """
        Collect what has ended: the job's main process, and its orphans.

        Return whether any child is left.
        """
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            self.cpu_seconds += usage.ru_utime + usage.ru_stime
            unit = 1 if sys.platform == "darwin" else 1024
            self.largest = max(self.largest, usage.ru_maxrss * unit)
            if pid == self.main:
                self.status = status

    def stop(self) -> None:
        """Ask the job to end; the file "cancel" says why and how fast."""
        asked: Dict[str, Any] = {"cause": "poweroff"}
        path = os.path.join(self.directory, "cancel")
        if os.path.exists(path):
            try:
                asked = dict(json.loads(box.read(path)))
            except (ValueError, TypeError):
                asked = {}
        kill_at = time.monotonic() + float(asked.get("grace", self.plan.grace))
        self.kill_at = min(self.kill_at, kill_at) if self.cause else kill_at
        self.cause = self.cause or str(asked.get("cause", "cancel"))
        processes.ask_to_end(self.family())

    def family(self) -> List[int]:
        """Return all that the job has started and that still runs."""
        mine = processes.below(os.getpid(), processes.running())
        found = {process.pid for process in mine}
        if not self.reaper:
            found.update(
                processes.marked(
                    "ONEBOX_JOB=" + self.plan.job, "ONEBOX_BOX=" + self.at.id
                )
            )
        if not found and sys.platform != "linux":
            return processes.group(self.main)
        return sorted(found)

    def clean_up(self) -> List[str]:
        """End what the main process has left running; return its commands."""
        if not self.cause:
            left = self.patience(SETTLE)
        # We may just have been told to end it: then it has its whole grace.
        if self.cause:
            left = self.patience(self.kill_at - time.monotonic())
        names = [processes.command(pid) for pid in left]
        if left and not self.cause:
            processes.ask_to_end(left)
            left = self.patience(LEFTOVER_GRACE)
        end = time.monotonic() + UNKILLABLE
        while left and time.monotonic() < end:
            processes.send(signal.SIGKILL, left)
            left = self.patience(0.05)
        return names

    def patience(self, seconds: float) -> List[int]:
        """Wait for the family to end by itself; return who has not."""
        end = time.monotonic() + seconds
        while True:
            children = self.reap()
            left = self.family()
            # Who forks and ends while we look is not seen, nor is its child; but of
            # what has lost its parent we are the parent.
            unseen = not left and children and self.reaper
            over = time.monotonic() >= (end + SETTLE if unseen else end)
            if over or not (left or unseen):
                return left
            self.wait(0.02)

    def record(self, survivors: List[str]) -> Dict[str, Any]:
        """Say how the job ended."""
        status = self.status or 0
        by_signal = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        code = _code(status)
        cause = self.cause or ("signal" if by_signal else "exit")
        if not self.cause and code:
            if code == 137 and metrics.oom_kills() > self.oom_kills:
                cause = "oom"
            elif self.disk_is_full():
                cause = "disk-full"
        self.drop_ballast()
        start, end = log_limit.gap(self.directory)
        return {
            "job": self.plan.job,
            "code": code,
            "signal": by_signal,
            "cause": cause,
            "log_bytes": os.stat(os.path.join(self.directory, "log")).st_size,
            "log_gone": end - start,
            "boot_id": self.at.boot_id,
            "started": self.started,
            "ended": time.time(),
            "seconds": round(box.boottime() - self.started_boottime, 3),
            "cpu_seconds": round(self.cpu_seconds, 2),
            "memory_peak": max(self.sampler.job_peak, self.largest),
            "memory_largest": self.sampler.largest,
            "box_memory_peak": self.sampler.peak,
            "survivors": survivors,
        }

    def disk_is_full(self) -> bool:
        """Tell whether the job failed for want of disk, as far as one can see."""
        free, total = box.disk(self.at.work)
        return total > 0 and free < max(FULL, total // 1000) + self.given_back

    def drop_ballast(self) -> int:
        """Give the ballast back; return how many bytes that was."""
        size, self.ballast = self.ballast, 0
        try:
            os.unlink(os.path.join(self.directory, "ballast"))
        except FileNotFoundError:
            return 0
        return size


def _code(status: int) -> int:
    """Return the exit code, as a shell would, of what `wait` has told."""
    by_signal = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    return 128 + by_signal if by_signal else os.WEXITSTATUS(status)


def _save(directory: str, name: str, value: Dict[str, Any]) -> None:
    fd = os.open(
        os.path.join(directory, name), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600
    )
    with os.fdopen(fd, "w", encoding="ascii") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(fd)
