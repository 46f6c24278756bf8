"""
Watch a job on a Ray cluster from this machine, until all of it is here.

One process does that for each job. It holds a lock in the job's directory for as long
as it lives, as the supervisor of a job on a box does. If it is killed, the next command
starts another one, which goes on.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import time
from typing import Any, Dict, Optional

from ..box import BoxConfig, replace_file, touch
from ..box import read as read_file
from ..file_names import Hostile
from ..jobs import exit_record, job_state
from ..jobs.engine import NOT_STARTED
from ..jobs.exit_record import StoredExitRecord
from . import submission
from .inbox import Inbox, Status
from .jobs_api import ENDED, ID, RayError, Unreachable

LOCK = "lock"
# Why the job has not begun yet, "" when it has.
WAITING = "waiting"
# Why nothing is known about the end of the job, if that is so.
LOST = "lost"
FORGOTTEN = "the cluster does not know it any more: was its head started again?"
# Seconds between two looks: at first, and later a share of the job's age.
SHORTEST, LONGEST, SHARE = 0.5, 5.0, 0.02
# The supervisor has so many seconds beyond the job's grace to hand over everything
# after Ray has ended the entry point.
LATE = 120.0
# What the cluster sends may be wrong so many times in a row; it may be half written.
MISTAKES = 5
# After these errors of the disk here, what comes is asked for again.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENFILE, errno.EMFILE)
# A job that the cluster does not know is looked for during so many seconds, because the
# answer may be that of a proxy.
MISSING = 15.0
# What a supervisor has handed over may be visible so many seconds later.
VISIBLE = 20.0
# The cluster is asked to stop a job once in so many seconds.
STOP_AGAIN = 5.0
BRIEF = 300


def run(root: str, directory: str) -> int:
    """Watch the job in *directory*, unless another process does."""
    box = BoxConfig.load(root)
    path = os.path.join(directory, LOCK)
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return 0
    watch = _Watch(box, os.path.basename(directory))
    try:
        while not watch.look():
            time.sleep(watch.pause())
    except FileNotFoundError:
        # The box was removed.
        if os.path.isdir(directory):
            raise
    return 0


class _Watch:
    def __init__(self, box: BoxConfig, job: str) -> None:
        self.box = box
        self.job = job
        self.id = submission.job_name(box.id, job)
        self.directory = box.path("jobs", job)
        self.storage = submission.storage_of(box, job)
        self.cluster = submission.cluster_of(box)
        self.inbox = Inbox(box, job)
        self.begun = time.monotonic()
        self.mistakes = 0
        self.beat = 0.0
        self.beat_at = time.monotonic()
        self.stop_at = self.missing_since = self.ended_since = 0.0
        self.node = ""

    def pause(self) -> float:
        """Return the seconds until the next look."""
        age = time.monotonic() - self.begun
        return min(max(age * SHARE, SHORTEST), LONGEST)

    def look(self) -> bool:
        """Look at the job once; return whether there is nothing more to do."""
        if is_over(self.directory) or not os.path.isdir(self.directory):
            return True
        try:
            over = self._look()
            self.mistakes = 0
            return over
        except Unreachable as error:
            self.cluster.close()
            self._wait_for("the cluster does not answer: %s" % error)
        except RayError as error:
            return self._lose("Ray refuses it: %s" % error)
        except OSError as error:
            if error.errno in FULL:
                self._wait_for("this machine does not answer: %s" % error.strerror)
                return False
            return self._mistake(error)
        # Whatever the cluster sends, this process does not end before the job.
        except Exception as error:
            return self._mistake(error)
        return False

    def _mistake(self, error: Exception) -> bool:
        """Note that what the cluster sends is not valid; give it up after some."""
        self.mistakes += 1
        if self.mistakes < MISTAKES:
            return False
        return self._lose("what comes from the cluster is not valid: %s" % error)

    def _look(self) -> bool:
        ordered = os.path.exists(os.path.join(self.directory, "cancel"))
        if not submission.is_submitted(self.directory):
            if ordered:
                # Ray may have got it although its answer was lost.
                self.cluster.stop(self.id)
                if self.cluster.job(self.id) is None:
                    submission.forget_plan(self.directory)
                    return self._stopped()
            elif submission.is_forgotten(self.directory, self.cluster):
                return self._lose(FORGOTTEN)
            else:
                submission.submit(self.box, self.job)
        details = self.cluster.job(self.id)
        if details is None:
            return self._is_missing()
        self.missing_since = 0.0
        state = str(details.get("status"))
        if ordered and state not in ENDED and time.monotonic() >= self.stop_at:
            self.stop_at = time.monotonic() + STOP_AGAIN
            self.cluster.stop(self.id)
            if state == "PENDING":
                self.cluster.drop(self.id)
        found = str(details.get("driver_node_id") or "")
        self.node = found if ID.fullmatch(found) else self.node
        status = None
        if self.node or self.storage:
            status = self.inbox.receive(self._read, time.time())
        if status is not None:
            self._note_beat(status)
            if isinstance(status.fields.get("end"), dict):
                return self._finish(status.fields["end"])
        elif state == "PENDING":
            self._wait_for("PENDING (no free resources, or its environment is made)")
        if state in ENDED and self._is_silent(status, details):
            # A job that was dropped has failed, for Ray.
            has_begun = status is not None
            return self._conclude(state, details, ordered, has_begun)
        return False

    def _is_missing(self) -> bool:
        """Give up a job that the cluster does not know, unless that may be wrong."""
        now = time.monotonic()
        self.missing_since = self.missing_since or now
        again = submission.is_forgotten(self.directory, self.cluster)
        if again or now - self.missing_since > MISSING:
            return self._lose(FORGOTTEN)
        return False

    def _read(self, name: str, most: int) -> Optional[bytes]:
        """Return a file of the outbox, None if it is missing."""
        if not self.storage:
            folder = "onebox/%s-%s/" % (self.box.id, self.job)
            return self.cluster.log_file(self.node, folder + name, most)
        path = os.path.join(self.storage, "out", name)
        if not os.path.isdir(os.path.dirname(self.storage)):
            raise Unreachable("[ray] storage is not here: %s" % self.storage)
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            with os.fdopen(os.open(path, flags), "rb") as file:
                data = file.read(most + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Unreachable("%s: %s" % (path, error.strerror)) from error
        if len(data) > most:
            raise Hostile("%s is too long" % name)
        return data

    def _note_beat(self, status: Status) -> None:
        if status.beat != self.beat:
            self.beat, self.beat_at = status.beat, time.monotonic()
            touch(os.path.join(self.directory, "heartbeat"))
        self._wait_for("")

    def _is_silent(self, status: Optional[Status], details: Dict[str, Any]) -> bool:
        """Return whether the supervisor of a job that Ray has ended is gone too."""
        now = time.monotonic()
        self.ended_since = self.ended_since or now
        if status is None:
            # Without a node it has never begun.
            return not self.node or now - self.ended_since > VISIBLE
        if details.get("driver_exit_code") == submission.DIED:
            # The entry point says that nothing comes any more.
            return now - self.ended_since > 2.0
        return now - self.beat_at > job_state.grace(self.box, self.job) + LATE

    def _finish(self, end: Dict[str, Any]) -> bool:
        """Publish the exit record that the node has sent."""
        fields = end.get("record")
        if not isinstance(fields, dict):
            return self._lose("its supervisor has left no exit record")
        record = self.inbox.record(fields, self._cause())
        lost = end.get("lost")
        if lost:
            # The box stays, and so does what is on the node.
            return self._lose(
                "it ended with exit %d, but %s" % (record.code, _brief(lost))
            )
        return self._publish(record)

    def _conclude(
        self, state: str, details: Dict[str, Any], ordered: bool, has_begun: bool
    ) -> bool:
        """
        Publish what Ray itself says about a job that has left no end.

        Args:
            ordered: Whether the job was to be stopped. For Ray, one that was dropped
                has failed.

            has_begun: Whether its supervisor has handed over anything.
        """
        if not has_begun and (ordered or state == "STOPPED"):
            return self._stopped()
        lines = [
            line
            for line in str(details.get("message") or "").splitlines()
            if line.strip()
        ]
        said = _brief(lines[-1]) if lines else "Ray says %s" % state
        code = details.get("driver_exit_code")
        if not has_begun:
            return self._lose(NOT_STARTED + said)
        if type(code) is int and code != submission.DIED:
            return self._lose(
                "it ended with exit %d, but its outputs did not arrive" % code
            )
        return self._lose(said)

    def _stopped(self) -> bool:
        return self._publish(self._record(143, self._cause() or "cancel"))

    def _cause(self) -> str:
        """Return the cause of the order to stop the job, "" without an order."""
        if not os.path.exists(os.path.join(self.directory, "cancel")):
            return ""
        return job_state.read_stop_order(self.directory).cause

    def _record(self, code: int, cause: str) -> StoredExitRecord:
        start = job_state.read_start(self.directory)
        return StoredExitRecord(
            job=self.job,
            code=code,
            cause=cause,
            log_bytes=os.stat(os.path.join(self.directory, "log")).st_size,
            started=start.at if start else time.time(),
            ended=time.time(),
        )

    def _publish(self, record: StoredExitRecord) -> bool:
        with contextlib.suppress(FileExistsError):
            exit_record.publish(self.directory, record)
        return True

    def _lose(self, why: str) -> bool:
        path = os.path.join(self.directory, LOST)
        replace_file(path, json.dumps({"why": why}).encode("ascii"), sync=True)
        return True

    def _wait_for(self, why: str) -> None:
        path = os.path.join(self.directory, WAITING)
        if read_file(path).decode("utf-8", "replace") != why:
            # The disk may be full.
            with contextlib.suppress(OSError):
                replace_file(path, why.encode("utf-8", "replace"), sync=False)


def is_over(directory: str) -> bool:
    """Return whether the end of the job in *directory* is here, or never comes."""
    return any(
        os.path.exists(os.path.join(directory, name))
        for name in (exit_record.NAME, LOST)
    )


def _brief(text: Any) -> str:
    shown = "".join(char if char.isprintable() else " " for char in str(text or ""))
    return shown.strip()[:BRIEF]
