"""
The dead man's switch: power the box off at its deadline, or when it is idle.

It needs no network, no credentials and no client, only `box.json`, the lease and
the locks of the running jobs. It also ends the job when the cloud announces a
preemption. The CPU load is not measured, because a job that waits for a disk is
not idle.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from typing import List, Set

from . import preemption_notice, processes
from .box import BoxConfig, boottime, is_locked, read
from .jobs import job_state
from .jobs.job_state import StopOrder
from .protocol import Refused

POLL = 1.0
# A job gets at most this many seconds to write a checkpoint before a power-off.
LAST_GRACE = 60.0
# The exit record must be on the disk this many seconds before a preemption.
NOTICE_MARGIN = 2.0
# The watchdog waits at most this many seconds for a child process, so that neither a
# dead disk nor a hanging power-off command keeps the box on.
PATIENCE = 30.0
SUCCESS = "exit status 0"
# Connected clients have this many seconds to read the job's last output before a
# shutdown.
LAST_OUTPUT = 0.5
# A power-off waits at most this many seconds while the supervisor tells a URL that its
# job has ended.
NOTIFICATION = 10.0
# The watchdog survives these errors, because a job can write nonsense into its own
# directory, and the box can run out of any resource.
FAULTS = (OSError, ValueError, KeyError, TypeError, AttributeError, MemoryError)


def watch(root: str) -> None:
    """
    Watch until the box is off, or until the agent's directory is gone.

    Return at once if another watchdog runs.
    """
    os.umask(0o077)
    try:
        watchdog = Watchdog(root)
    except Refused as refusal:
        raise SystemExit(refusal.message) from refusal
    lock = os.open(os.path.join(root, "watch.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    processes.adjust_oom_score(-900)
    preemption_notice.listen(watchdog.box)
    while os.path.isdir(root):
        try:
            before_shutdown(watchdog.box)
            reason = watchdog.reason_to_power_off()
        except FAULTS as fault:
            note(watchdog.box, "error, still watching: %r" % fault)
            reason = ""
        if reason:
            note(watchdog.box, "power off: %s" % reason)
            power_off(watchdog.box, "deadline")
        time.sleep(POLL)


def power_off(box: BoxConfig, cause: str) -> None:
    """
    End the job and power the box off, by force if needed.

    Return only if the box is still up after that. *cause* is stored in the job's exit
    record.
    """
    try:
        _end_job(box, cause)
    except FAULTS as fault:
        note(box, "the job could not be ended: %r" % fault)
    _sync()
    run(box, box.poweroff)
    until = time.monotonic() + box.poweroff_wait
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            before_shutdown(box)
        time.sleep(min(POLL, box.poweroff_wait))
    if box.poweroff_force:
        note(box, "the box is still on")
        run(box, box.poweroff_force)


def before_shutdown(box: BoxConfig) -> None:
    """
    End the job if the box shuts down, while its clients are still connected.

    An orderly shutdown creates the file `off`, and goes on when this function has
    removed it. So a client whose connection breaks before it hears of the job's end
    knows that the box crashed.
    """
    request = box.path("off")
    if not os.path.exists(request):
        return
    try:
        if job_state.running(box):
            note(box, "the box is shutting down: the job ends")
            _end_job(box, "poweroff")
            time.sleep(LAST_OUTPUT)
    finally:
        os.unlink(request)


def _end_job(box: BoxConfig, cause: str) -> None:
    job = job_state.running(box)
    if not job:
        return
    grace = min(job_state.grace(box, job), LAST_GRACE)
    _stop_job(box, job, StopOrder(cause, grace))
    end = time.monotonic() + grace + 5
    while job_state.running(box) and time.monotonic() < end:
        time.sleep(0.05)
    end = time.monotonic() + NOTIFICATION
    lock = box.path("jobs", job, "lock")
    while is_locked(lock) and time.monotonic() < end:
        time.sleep(0.05)


def note(box: BoxConfig, text: str) -> None:
    """Append a line to the watchdog's log."""
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    try:
        with open(box.path("watch.log"), "a", encoding="utf-8") as file:
            file.write("%s %s\n" % (moment, text))
    except OSError:
        return


class Watchdog:
    """
    Decides when the box must power off.

    It remembers when it noticed the last sign of life (a job, or a new time of the
    lease), on a clock that cannot be set. The lease's own time is not used, because
    the box's wall clock may jump when it is first synchronised.
    """

    def __init__(self, root: str) -> None:
        # The mtime of box.json is read before its contents, so that a change in between
        # is noticed later.
        self.config_mtime = _mtime(os.path.join(root, "box.json"))
        self.box = BoxConfig.load(root)
        self.armed_at = self.alive_at = boottime()
        self.lease_mtime = _mtime(self.box.path("lease"))
        self.warned: Set[str] = set()

    def reason_to_power_off(self) -> str:
        """Return why the box must power off now, "" if it may stay on."""
        now = boottime()
        self.reload_config(now)
        box = self.box
        lifetime = box.deadline - box.armed
        if time.time() >= box.deadline or now - self.armed_at >= lifetime:
            return "deadline"
        running = job_state.running(box)
        lease_mtime = _mtime(box.path("lease"))
        if running or lease_mtime != self.lease_mtime:
            self.lease_mtime = lease_mtime
            self.alive_at = now
        if running:
            self.warn_of_preemption(running)
            return ""
        idle = now - self.alive_at
        if job_state.jobs(box):
            return "no job and no client" if idle >= box.idle_grace else ""
        return "no job ever started" if idle >= box.setup_grace else ""

    def reload_config(self, now: float) -> None:
        """Read box.json again if it has changed; ignore it if it is invalid."""
        mtime = _mtime(self.box.path("box.json"))
        if mtime == self.config_mtime:
            return
        try:
            fresh = BoxConfig.load(self.box.root)
        except Refused as refusal:
            note(self.box, refusal.message)
            return
        finally:
            self.config_mtime = mtime
        if fresh.armed != self.box.armed:
            self.armed_at = self.alive_at = now
        self.box = fresh

    def warn_of_preemption(self, job: str) -> None:
        """Order a job to stop, once, if the cloud has announced a preemption."""
        notice = read(self.box.path("notice"))
        if not notice or job in self.warned:
            return
        try:
            left = float(json.loads(notice)["at"]) - time.time()
        except (ValueError, KeyError, TypeError):
            # The notice is incomplete, or has an unknown format. The job is stopped
            # anyway, because the watchdog does not wait for a better notice.
            left = LAST_GRACE
        self.warned.add(job)
        note(self.box, "preemption in %.0f s: job %s ends" % (left, job))
        grace = max(left - NOTICE_MARGIN, 0)
        _stop_job(self.box, job, StopOrder("preempted", grace))


def _stop_job(box: BoxConfig, job: str, order: StopOrder) -> None:
    """
    Order a job to stop, with the rights of the job's own user.

    Root must not write here: a job can replace any file below its folder with a link,
    and root would write to the file that the link leads to.
    """
    owner = os.stat(box.path("jobs"))
    if owner.st_uid == os.geteuid():
        job_state.order_stop(box, job, order)
        return
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(owner.st_gid)
            os.setuid(owner.st_uid)
            job_state.order_stop(box, job, order)
        finally:
            os._exit(0)
    _wait(pid)


def _mtime(path: str) -> int:
    """Return a file's modification time in nanoseconds, 0 if it does not exist."""
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


def _sync() -> None:
    """Flush all disks, waiting at most `PATIENCE` seconds for them."""
    try:
        pid = os.fork()
    except OSError:
        return
    if pid == 0:
        try:
            os.sync()
        finally:
            os._exit(0)
    _wait(pid)


def run(box: BoxConfig, argv: List[str]) -> bool:
    """
    Run a command as root without input and output; return whether it succeeded.

    A command that does not end within `PATIENCE` seconds counts as failed and is left
    running.
    """
    argv = box.as_root(argv)
    null = os.open(os.devnull, os.O_RDWR)
    try:
        pid = os.posix_spawnp(
            argv[0],
            argv,
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, null, fd) for fd in (0, 1, 2)],
        )
    except OSError as error:
        note(box, "%s: %s" % (argv[0], error))
        return False
    finally:
        os.close(null)
    outcome = _wait(pid)
    note(box, "%s: %s" % (argv, outcome))
    return outcome == SUCCESS


def _wait(pid: int) -> str:
    """Wait at most `PATIENCE` seconds for a child; return a text on how it ended."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return "exit status %d" % status
        time.sleep(0.02)
    return "still running after %.0f s" % PATIENCE
