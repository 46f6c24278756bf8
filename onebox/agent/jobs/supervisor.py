"""
The supervisor: one process per job, which starts the job and writes its exit record.

The job writes to its log by itself; the supervisor never handles its output. The
supervisor holds a lock for as long as it lives. The kernel releases that lock however
the supervisor ends. So the lock shows whether a job runs; a process id would not show
that reliably.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import sys
import time
from typing import List, Optional

from .. import processes
from ..box import BoxConfig, boottime, disk_space, sync_folder, touch
from ..protocol import Refused
from ..units import plan as unit_plan
from ..units import progress as unit_progress
from . import (
    durable,
    exec,
    exit_record,
    job_state,
    log_limit,
    log_times,
    metrics,
    notification,
)
from .exit_record import StoredExitRecord

# All times are in seconds.
TICK = 1.0
HEARTBEAT = 10.0
# Processes that the main process left running have LEFTOVER_WAIT to end by themselves,
# and then LEFTOVER_GRACE to end after SIGTERM.
LEFTOVER_WAIT = 0.3
LEFTOVER_GRACE = 2.0
# During a shutdown the job may receive SIGTERM this long before the supervisor does.
SHUTDOWN_SKEW = 1.0
# A process that waits for a dead disk cannot be killed. After this time the job
# counts as ended regardless.
UNKILLABLE = 30.0
BALLAST = 64 << 20
FULL = 1 << 20


def detach(box: BoxConfig, plan: exec.JobPlan, guard: int) -> None:
    """
    Start a supervisor that outlives this process. Raises `Refused` if it fails.

    The plan contains secrets, so it reaches the supervisor by fork, and not through a
    pipe or a file. The supervisor holds *guard*, the lock on starting jobs, until the
    job's directory exists.
    """
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            if os.fork() == 0:
                JobSupervisor(box, plan, write_end, guard).run()
        finally:
            # The traceback goes to stderr, which is a file in the job's directory by
            # now.
            if sys.exc_info()[0] is not None:
                sys.excepthook(*sys.exc_info())
            os._exit(0)
    os.close(write_end)
    os.waitpid(child, 0)
    with os.fdopen(read_end, "rb") as pipe:
        report = pipe.read()
    if report != b"ready":
        why = report.decode("utf-8", "replace") or "its supervisor died at once"
        raise Refused("start", "job %s did not start: %s" % (plan.job, why))


class JobSupervisor:
    """
    The supervisor of one job.

    It writes "ready" to the descriptor *ready* once the job has started, or else the
    reason why it has not. *guard* is the lock on starting jobs.
    """

    def __init__(
        self, box: BoxConfig, plan: exec.JobPlan, ready: int, guard: int
    ) -> None:
        self.box = box
        self.plan = plan
        self.ready = ready
        self.guard = guard
        self.directory = box.path("jobs", plan.job)
        self.main = 0
        self.status: Optional[int] = None
        self.cause = ""
        self.kill_at = 0.0
        self.cpu_seconds = 0.0
        self.largest = 0
        self.ballast = self.released = 0
        self.heartbeat_at = 0.0

    def run(self) -> None:
        """Prepare and start the job, watch it to its end, and publish its record."""
        try:
            self.prepare()
        except OSError as error:
            os.write(self.ready, str(error).encode("utf-8", "replace"))
            return
        self.started = time.time()
        self.started_boottime = boottime()
        self.oom_kills = metrics.oom_kills()
        self.reaper = processes.become_subreaper()
        processes.adjust_oom_score(-900)
        self.sampler = metrics.Sampler(self.directory, self.box.work, os.getpid())
        self.trimmer = log_limit.Trimmer(self.directory, self.plan.max_log)
        self.marker = log_times.Marker(self.directory)
        self.start()
        # The client may have disconnected; the job runs regardless.
        with contextlib.suppress(BrokenPipeError):
            os.write(self.ready, b"ready")
        os.close(self.ready)
        self.watch()
        survivors = self.clean_up()
        self.marker.mark(time.time())
        record = self.record(survivors)
        # A client stops following when it sees the record, so this is asked before.
        followed = notification.has_follower(self.directory)
        exit_record.publish(self.directory, record)
        if self.plan.notify:
            notification.after_end(self.directory, self.plan.notify, record, followed)

    def prepare(self) -> None:
        """
        Create the job's directory, which has a temporary name until it is complete.
        """
        fresh = self.box.path("jobs", ".new-%d" % os.getpid())
        os.mkdir(fresh, 0o700)
        exec.leave_connection((self.ready, self.guard), os.path.join(fresh, "trouble"))
        self.wake = processes.wake_on_signals()
        self.lock = os.open(
            os.path.join(fresh, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        durable.save_json(fresh, "spec.json", self.plan.spec)
        if self.plan.units:
            durable.save(fresh, unit_plan.NAME, self.plan.units)
            unit_progress.prepare(fresh)
        at = job_state.next_start(self.box, time.time())
        start = job_state.Start(os.getpid(), self.box.boot_id, at)
        durable.save_json(fresh, "started.json", start._asdict())
        self.log = os.open(
            os.path.join(fresh, "log"),
            os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC,
            0o600,
        )
        exit_record.prepare(fresh)
        self.allocate_ballast(fresh)
        os.rename(fresh, self.directory)
        sync_folder(os.path.dirname(self.directory))
        os.close(self.guard)

    def allocate_ballast(self, directory: str) -> None:
        """Allocate the ballast: disk space that is released when the disk is full."""
        size = min(BALLAST, disk_space(directory)[0] // 10)
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

    def start(self) -> None:
        """Start the job in its own session."""
        everything = set(signal.valid_signals())
        signal.pthread_sigmask(signal.SIG_BLOCK, everything)
        self.main = os.fork()
        if self.main == 0:
            try:
                exec.become_job(self.plan, self.box.work, self.log)
            finally:
                os._exit(126)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, everything)
        os.close(self.log)
        # The job has its own copy of the environment. So the supervisor drops its copy,
        # which contains secrets.
        self.plan.environment.clear()

    def watch(self) -> None:
        """
        Wait until the job's main process has ended; stop the job if that is ordered.
        """
        tick_at = 0.0
        while self.status is None:
            now = time.monotonic()
            if now >= tick_at:
                tick_at = now + TICK
                self.tick(now)
            end = min(tick_at, self.kill_at) if self.cause else tick_at
            self.wait(end - time.monotonic())
            if self.cause and time.monotonic() >= self.kill_at:
                processes.send(signal.SIGKILL, self.family())
                self.kill_at = time.monotonic() + 0.1
        if not self.cause and self.ended_by_sigterm():
            # A shutdown signals all processes in any order, so this supervisor may
            # receive its SIGTERM only after the job has ended.
            end = time.monotonic() + SHUTDOWN_SKEW
            while not self.cause and time.monotonic() < end:
                self.wait(end - time.monotonic())

    def tick(self, now: float) -> None:
        """
        Update the heartbeat and the samples, and trim the log.

        If the disk is full, also release the ballast.
        """
        if now >= self.heartbeat_at:
            self.heartbeat_at = now + HEARTBEAT
            touch(os.path.join(self.directory, "heartbeat"))
        if min(disk_space(self.directory)[0], disk_space(self.box.work)[0]) < FULL:
            self.released += self.release_ballast()
        self.trimmer.trim()
        self.marker.mark(time.time())
        self.sampler.take()

    def wait(self, seconds: float) -> None:
        """Wait for a signal, at most for *seconds*, and handle it."""
        select.select([self.wake], [], [], max(seconds, 0.0))
        try:
            signals = os.read(self.wake, 4096)
        except BlockingIOError:
            signals = b""
        self.reap()
        if signal.SIGTERM in signals and (
            self.status is None or self.ended_by_sigterm()
        ):
            self.stop()

    def ended_by_sigterm(self) -> bool:
        """
        Return whether SIGTERM ended the job.

        The main process may be a shell that exits with 143 when SIGTERM ends its
        command.
        """
        return exec.exit_code(self.status or 0) == 128 + signal.SIGTERM

    def reap(self) -> bool:
        """
        Reap the children that have ended: the main process and adopted orphans.

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
        """
        Send SIGTERM to the job, and set the cause of its end and the time of SIGKILL.

        Both come from the stop order. After several orders, the first cause and the
        earliest time apply.
        """
        order = job_state.read_stop_order(self.directory)
        grace = self.plan.grace if order.grace is None else order.grace
        kill_at = time.monotonic() + grace
        self.kill_at = min(self.kill_at, kill_at) if self.cause else kill_at
        self.cause = self.cause or self.cause_of(order)
        processes.terminate(self.family())

    def cause_of(self, order: job_state.StopOrder) -> str:
        """Return the cause that an order to stop the job gives to its end."""
        return order.cause

    def family(self) -> List[int]:
        """Return the pids of the running processes that the job has started."""
        family = processes.descendants(os.getpid(), processes.all_processes())
        found = {process.pid for process in family}
        if not self.reaper:
            found.update(job_state.strays(self.box, self.plan.job))
        if not found and sys.platform != "linux":
            return processes.group(self.main)
        return sorted(found)

    def clean_up(self) -> List[str]:
        """
        End the processes that the main process left running.

        Return the command lines of those that did not end by themselves.
        """
        if not self.cause:
            left = self.wait_for_family(LEFTOVER_WAIT)
        # If a stop order has arrived, even during the wait above, the job gets the full
        # grace of the order.
        if self.cause:
            left = self.wait_for_family(self.kill_at - time.monotonic())
        names = [processes.command(pid) for pid in left]
        if left and not self.cause:
            processes.terminate(left)
            left = self.wait_for_family(LEFTOVER_GRACE)
        end = time.monotonic() + UNKILLABLE
        while left and time.monotonic() < end:
            processes.send(signal.SIGKILL, left)
            left = self.wait_for_family(0.05)
        return names

    def wait_for_family(self, seconds: float) -> List[int]:
        """
        Wait until the job's processes have ended, but at most about *seconds*.

        Return the pids of those that still run.
        """
        end = time.monotonic() + seconds
        while True:
            children = self.reap()
            left = self.family()
            # If a process forks and ends while the processes are listed, the list may
            # lack both it and its child. But a supervisor that is a subreaper adopts
            # this child, so `reap` then reports that a child is left.
            unseen = not left and children and self.reaper
            over = time.monotonic() >= (end + LEFTOVER_WAIT if unseen else end)
            if over or not (left or unseen):
                return left
            self.wait(0.02)

    def record(self, survivors: List[str]) -> StoredExitRecord:
        """
        Return the exit record of the job, and release the ballast.

        *survivors* are the command lines that `clean_up` returned.
        """
        status = self.status or 0
        by_signal = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        code = exec.exit_code(status)
        cause = self.cause or ("signal" if by_signal else "exit")
        if not self.cause and code:
            if metrics.killed_for_memory(self.oom_kills, code):
                cause = "oom"
            elif self.disk_is_full():
                cause = "disk-full"
        self.release_ballast()
        start, end = log_limit.gap(self.directory)
        return StoredExitRecord(
            job=self.plan.job,
            code=code,
            signal=by_signal,
            cause=cause,
            log_bytes=os.stat(os.path.join(self.directory, "log")).st_size,
            log_gone=end - start,
            boot_id=self.box.boot_id,
            started=self.started,
            ended=time.time(),
            seconds=round(boottime() - self.started_boottime, 3),
            cpu_seconds=round(self.cpu_seconds, 2),
            memory_peak=max(self.sampler.job_peak, self.largest),
            memory_largest=self.sampler.largest,
            box_memory_peak=self.sampler.peak,
            survivors=tuple(survivors),
        )

    def disk_is_full(self) -> bool:
        """Return whether a full disk is the likely reason for the job's failure."""
        free, total = disk_space(self.box.work)
        return total > 0 and free < max(FULL, total // 1000) + self.released

    def release_ballast(self) -> int:
        """Delete the ballast; return its size in bytes."""
        size, self.ballast = self.ballast, 0
        try:
            os.unlink(os.path.join(self.directory, "ballast"))
        except FileNotFoundError:
            return 0
        return size
