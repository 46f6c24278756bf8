"""
The dead man's switch: powers the box off when its time is over or it is idle.

It needs no network, no credentials and no client, and nothing but `box.json`,
the lease, and the locks of the states; the cloud's notice that it takes the box
back comes on top, where there is one. How busy the CPUs are says nothing: a job
that waits for a disk is not idle.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from typing import Any, Dict, List, Set

from . import box, preemption_notice, processes
from .box import Box
from .jobs import state
from .protocol import Refused

POLL = 1.0
# What a job gets to write a checkpoint before the box goes, at the most.
LAST_GRACE = 60.0
# The exit record must be on the disk before the cloud pulls the plug.
NOTICE_MARGIN = 2.0
# Neither a dead disk nor a power-off command that hangs may keep the box on.
PATIENCE = 30.0
SUCCESS = "exit status 0"
# Who follows a job reads of its end within this time.
LAST_WORDS = 0.5
# A job can write nonsense into its own directory, and a box can run out of
# everything: nothing of that may end the watch.
FAULTS = (OSError, ValueError, KeyError, TypeError, AttributeError, MemoryError)


def watch(root: str) -> None:
    """Watch until the box is off, or its directory is gone."""
    os.umask(0o077)
    try:
        watchman = Watchdog(root)
    except Refused as refusal:
        raise SystemExit(refusal.message) from refusal
    lock = os.open(os.path.join(root, "watch.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    processes.adjust_oom_score(-900)
    preemption_notice.listen(watchman.at)
    while os.path.isdir(root):
        try:
            before_off(watchman.at)
            reason = watchman.look()
        except FAULTS as fault:
            note(watchman.at, "went wrong, still watching: %r" % fault)
            reason = ""
        if reason:
            note(watchman.at, "power off: %s" % reason)
            power_off(watchman.at, "deadline")
        time.sleep(POLL)


def power_off(at: Box, cause: str) -> None:
    """
    End the job, power the box off, and insist; return if the box lives on.

    *cause* is what the job's record will say.
    """
    try:
        _end_job(at, cause)
    except FAULTS as fault:
        note(at, "the job could not be ended: %r" % fault)
    _sync()
    run(at, at.poweroff)
    until = time.monotonic() + at.poweroff_wait
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            before_off(at)
        time.sleep(min(POLL, at.poweroff_wait))
    if at.poweroff_force:
        note(at, "the box is still on")
        run(at, at.poweroff_force)


def before_off(at: Box) -> None:
    """
    End the job if the box shuts down, while its clients are still connected.

    An orderly shutdown waits for it: it creates the file `off`, and goes on once
    that is removed. So a client that has not read how the job ended knows that
    the box crashed.
    """
    asked = at.path("off")
    if not os.path.exists(asked):
        return
    try:
        if state.running(at):
            note(at, "the box is shutting down: the job ends")
            _end_job(at, "poweroff")
            time.sleep(LAST_WORDS)
    finally:
        os.unlink(asked)


def _end_job(at: Box, cause: str) -> None:
    job = state.running(at)
    if not job:
        return
    grace = min(state.grace(at, job), LAST_GRACE)
    _tell(at, job, {"cause": cause, "grace": grace})
    end = time.monotonic() + grace + 5
    while state.running(at) and time.monotonic() < end:
        time.sleep(0.05)


def note(at: Box, text: str) -> None:
    """Add a line to the watch's own log."""
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    try:
        with open(at.path("watch.log"), "a", encoding="utf-8") as file:
            file.write("%s %s\n" % (moment, text))
    except OSError:
        return


class Watchdog:
    """
    Remembers when there was last a sign of life, by a clock nobody can set.

    A lease's age is counted from the moment its change was seen, not from the
    time it bears: the box's wall clock may jump when it first learns the time.
    """

    def __init__(self, root: str) -> None:
        # First: what is written while box.json is read is then read again.
        self.box_changed = _changed(os.path.join(root, "box.json"))
        self.at = box.load(root)
        self.armed_at = self.alive_at = box.boottime()
        self.lease_changed = _changed(self.at.path("lease"))
        self.warned: Set[str] = set()

    def look(self) -> str:
        """Return why the box must go off now, "" if it need not."""
        now = box.boottime()
        self.read_again(now)
        at = self.at
        if time.time() >= at.deadline or now - self.armed_at >= at.deadline - at.armed:
            return "deadline"
        running = state.running(self.at)
        lease = _changed(self.at.path("lease"))
        if running or lease != self.lease_changed:
            self.lease_changed = lease
            self.alive_at = now
        if running:
            self.pass_on_notice(running)
            return ""
        idle = now - self.alive_at
        if state.jobs(at):
            return "no job and nobody attached" if idle >= at.idle_grace else ""
        return "no job ever started" if idle >= at.setup_grace else ""

    def read_again(self, now: float) -> None:
        """Take over a changed box.json; one that cannot be read changes nothing."""
        changed = _changed(self.at.path("box.json"))
        if changed == self.box_changed:
            return
        try:
            fresh = box.load(self.at.root)
        except Refused as refusal:
            note(self.at, refusal.message)
            return
        finally:
            self.box_changed = changed
        if fresh.armed != self.at.armed:
            self.armed_at = self.alive_at = now
        self.at = fresh

    def pass_on_notice(self, job: str) -> None:
        """Tell a job, once, that the cloud takes the box back, and when."""
        told = box.read(self.at.path("notice"))
        if not told or job in self.warned:
            return
        try:
            left = float(json.loads(told)["at"]) - time.time()
        except (ValueError, KeyError, TypeError):
            # Half written, or of a kind we do not know: no time to lose.
            left = LAST_GRACE
        self.warned.add(job)
        note(self.at, "notice: the box goes in %.0f s; job %s ends" % (left, job))
        grace = max(left - NOTICE_MARGIN, 0)
        _tell(self.at, job, {"cause": "preempted", "grace": grace})


def _tell(at: Box, job: str, order: Dict[str, Any]) -> None:
    """
    Have a job end, with no more rights than it has itself.

    The job could put a link in the place of whatever is written below its folder.
    """
    owner = os.stat(at.path("jobs"))
    if owner.st_uid == os.geteuid():
        state.tell(at, job, order)
        return
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(owner.st_gid)
            os.setuid(owner.st_uid)
            state.tell(at, job, order)
        finally:
            os._exit(0)
    _wait(pid)


def _changed(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


def _sync() -> None:
    """Have the disks written, but do not wait for one that never answers."""
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


def run(at: Box, argv: List[str]) -> bool:
    """
    Run a command as root, with none of our files; tell whether it succeeded.

    One that does not end within `PATIENCE` is left running, and has failed.
    """
    argv = at.as_root(argv)
    null = os.open(os.devnull, os.O_RDWR)
    try:
        pid = os.posix_spawnp(
            argv[0],
            argv,
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, null, fd) for fd in (0, 1, 2)],
        )
    except OSError as error:
        note(at, "%s: %s" % (argv[0], error))
        return False
    finally:
        os.close(null)
    ended = _wait(pid)
    note(at, "%s: %s" % (argv, ended))
    return ended == SUCCESS


def _wait(pid: int) -> str:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return "exit status %d" % status
        time.sleep(0.02)
    return "no end in %.0f s" % PATIENCE
