"""
Receive the output of a job on this machine: its log, outputs, progress and end.

Nothing that comes from the cluster is trusted. What has arrived is noted, so that
another process can go on after this one has been killed.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from typing import IO, Any, Callable, Dict, NamedTuple, Optional, Tuple, cast

from ..box import BoxConfig, read, replace_file
from ..file_names import Hostile
from ..jobs import log_limit, log_times, metrics
from ..jobs.exit_record import StoredExitRecord
from ..units import progress as unit_progress
from . import archive, outbox

# This file in the job's directory says what has arrived.
NAME = "arrived.json"
LONGEST_STATUS = 1 << 20
MOST_PARTS = 1 << 20
# A log ends before this offset; a file with a gap of that length can be stored.
LONGEST_LOG = 1 << 42
# The work folder of a job on a node, in the job's own folder there.
NODE_WORK = b"/work/"
# The text of a message or a name from the cluster is shortened to this length.
BRIEF = 200
# The entries of an archive have so many bytes more than the files, at most.
SLACK = 64 << 20
CAUSES = ("exit", "signal", "cancel", "deadline", "oom", "disk-full", "poweroff")

# Returns a file of the outbox, None if it is missing; raises `jobs_api.Unreachable`.
Read = Callable[[str, int], Optional[bytes]]


class Arrived(NamedTuple):
    """How many parts and bytes of the log, and of the packs, have arrived."""

    log_parts: int = 0
    log_bytes: int = 0
    packs: int = 0
    pack_bytes: int = 0


class Status(NamedTuple):
    """
    What the node says about a job; *fields* are the values as they came.

    *beat* changes as long as the job's supervisor lives. The range *gap* of the log
    does not come, because the log is too long.
    """

    beat: float
    log_parts: int
    gap: Tuple[int, int]
    packs: int
    fields: Dict[str, Any]


class Inbox:
    """
    What arrives of a job.

    Args:
        box: The box on this machine, whose work folder gets the outputs.

        job: The job, whose directory gets everything else.
    """

    def __init__(self, box: BoxConfig, job: str) -> None:
        self._box = box
        self.job = job
        self.directory = box.path("jobs", job)
        self.arrived = self._load()
        path = os.path.join(self.directory, "log")
        self._log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        # What was written, but not noted as arrived, comes again.
        os.ftruncate(self._log, self.arrived.log_bytes)
        self._most_log = int(_spec(self.directory).get("max_log", 0))
        self._trimmer = log_limit.Trimmer(self.directory, self._most_log)
        # Through a storage come outputs of any size.
        through_head = not box.scheduler.get("storage")
        self._most = int(box.scheduler.get("most", 0)) if through_head else 0
        self._marker = log_times.Marker(self.directory)
        self._progress: Optional[unit_progress.ProgressFiles] = None

    def close(self) -> None:
        """Close the log."""
        os.close(self._log)

    def receive(self, read: Read, now: float) -> Optional[Status]:
        """
        Receive what is new; return the status of the job, None if there is none yet.

        Raises:
            Hostile: What came is not valid.

            jobs_api.Unreachable: The cluster does not answer.
        """
        data = read(outbox.STATUS, LONGEST_STATUS)
        if data is None:
            return None
        status = _status(data)
        self._receive_log(read, status)
        self._receive_packs(read, status.packs)
        self._show(status)
        self._marker.mark(now)
        self._trimmer.trim()
        return status

    def record(self, fields: Dict[str, Any], cause: str) -> StoredExitRecord:
        """
        Return the exit record of a job, from what its node says.

        Args:
            fields: The record as it came. Raises `Hostile` if it has no exit code.

            cause: Why the job was ended from here, "" if it was not.
        """
        code = fields.get("code")
        if type(code) is not int or not 0 <= code <= 255:
            raise Hostile("the record of the job has no exit code")
        signum = fields.get("signal")
        found = str(fields.get("cause"))
        names = fields.get("survivors")
        return StoredExitRecord(
            job=self.job,
            code=code,
            signal=signum if type(signum) is int and 0 < signum < 65 else None,
            cause=cause or (found if found in CAUSES else "exit"),
            log_bytes=os.fstat(self._log).st_size,
            log_gone=_gone(self.directory),
            boot_id="",
            memory_largest=_brief(fields.get("memory_largest", "")),
            survivors=tuple(
                _brief(name) for name in (names if isinstance(names, list) else [])[:20]
            ),
            started=_number(fields.get("started")),
            ended=_number(fields.get("ended")),
            seconds=_number(fields.get("seconds")),
            cpu_seconds=_number(fields.get("cpu_seconds")),
            memory_peak=int(_number(fields.get("memory_peak"))),
            box_memory_peak=int(_number(fields.get("box_memory_peak"))),
        )

    def _receive_log(self, read: Read, status: Status) -> None:
        while self.arrived.log_parts < status.log_parts:
            self._skip_gap(*status.gap)
            data = read("log.%d" % self.arrived.log_parts, outbox.PART)
            if data is None:
                raise Hostile("a part of the log is missing")
            gone = _gone(self.directory)
            if self._most_log and self.arrived.log_bytes - gone > self._most_log:
                raise Hostile("the log is longer than its limit")
            os.pwrite(self._log, data, self.arrived.log_bytes)
            self._note(
                self.arrived._replace(
                    log_parts=self.arrived.log_parts + 1,
                    log_bytes=self.arrived.log_bytes + len(data),
                )
            )

    def _skip_gap(self, start: int, end: int) -> None:
        """Go on behind the range of the log that does not come, if it begins here."""
        if start == self.arrived.log_bytes and end > start:
            gap = json.dumps([start, end]).encode("ascii")
            path = os.path.join(self.directory, log_limit.NAME)
            replace_file(path, gap, sync=True)
            self._note(self.arrived._replace(log_bytes=end))

    def _receive_packs(self, read: Read, packs: int) -> None:
        while self.arrived.packs < packs:
            number = self.arrived.packs
            with tempfile.TemporaryFile(dir=self.directory) as file:
                left = self._most + SLACK - self.arrived.pack_bytes if self._most else 0
                size = _receive_pack(read, number, file, left)
                file.seek(0)
                work = os.fsencode(self._box.work)
                archive.Reader(file, work, self._change_target).read()
            total = self.arrived.pack_bytes + size
            self._note(self.arrived._replace(packs=number + 1, pack_bytes=total))

    def _change_target(self, target: bytes) -> bytes:
        """Return a target on this machine for one in the work folder of a node."""
        # `scratch` gives the folder on the node this name.
        name = os.fsencode("%s-%s" % (self._box.id, self.job))
        head, found, rest = target.partition(b"/" + name + NODE_WORK)
        if found and head.startswith(b"/"):
            return os.path.join(os.fsencode(self._box.work), rest)
        return target

    def _show(self, status: Status) -> None:
        """Store the latest sample, and the progress of the units, for clients."""
        sample = status.fields.get("sample")
        if isinstance(sample, dict):
            try:
                checked = metrics.MetricSample(**sample)
                if all(type(one) in (int, float) or one is None for one in checked):
                    metrics.store_latest(self.directory, checked)
            except (TypeError, ValueError):
                pass
        units = status.fields.get("units")
        path = os.path.join(self.directory, unit_progress.NAME)
        if isinstance(units, dict) and os.path.exists(path):
            try:
                progress = unit_progress.Progress(**units)
                if all(type(one) in (int, float) or one is None for one in progress):
                    self._units(progress)
            except (TypeError, ValueError):
                return

    def _units(self, progress: unit_progress.Progress) -> None:
        if self._progress is None:
            self._progress = unit_progress.ProgressFiles(self.directory, 0)
        self._progress.update(progress)

    def _load(self) -> Arrived:
        try:
            return Arrived(**json.loads(read(os.path.join(self.directory, NAME))))
        except (ValueError, TypeError):
            return Arrived()

    def _note(self, arrived: Arrived) -> None:
        data = json.dumps(arrived._asdict()).encode("ascii")
        replace_file(os.path.join(self.directory, NAME), data, sync=False)
        self.arrived = arrived


def _receive_pack(read: Read, number: int, file: IO[bytes], most: int) -> int:
    """
    Copy the parts of a pack to *file*, and check them; return their size.

    It is at most *most*; 0 means no limit. Raises `Hostile`.
    """
    about = _object(read("pack.%d.json" % number, 1 << 12))
    parts, size = about.get("parts"), about.get("size")
    if type(parts) is not int or not 0 <= parts <= MOST_PARTS:
        raise Hostile("a pack has a number of parts that is not valid")
    digest, count = hashlib.sha256(), 0
    for part in range(parts):
        data = read("pack.%d.%d" % (number, part), outbox.PART)
        if data is None:
            raise Hostile("a part of the outputs is missing")
        digest.update(data)
        count += len(data)
        if most and count > most:
            raise Hostile("the outputs have more than [ray] max_outputs")
        file.write(data)
    if count != size or digest.hexdigest() != about.get("sha256"):
        raise Hostile("a part of the outputs has changed on the way")
    return count


def _status(data: bytes) -> Status:
    fields = _object(data)
    try:
        beat = float(fields["beat"])
        parts, packs = fields["log_parts"], fields["packs"]
        start, end = fields["log_gap"]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise Hostile("the status of the job is not valid") from error
    if not math.isfinite(beat):
        raise Hostile("the status of the job is not valid")
    for number in (parts, packs):
        if type(number) is not int or not 0 <= number <= MOST_PARTS:
            raise Hostile("the status of the job is not valid")
    for number in (start, end):
        if type(number) is not int or not 0 <= number <= LONGEST_LOG:
            raise Hostile("the status of the job is not valid")
    return Status(beat, parts, (start, end), packs, fields)


def _object(data: Optional[bytes]) -> Dict[str, Any]:
    try:
        value = json.loads(data or b"")
    except (ValueError, RecursionError) as error:
        raise Hostile("what the node says is not valid") from error
    if not isinstance(value, dict):
        raise Hostile("what the node says is not valid")
    return cast("Dict[str, Any]", value)


def _spec(directory: str) -> Dict[str, Any]:
    value = json.loads(read(os.path.join(directory, "spec.json")) or b"{}")
    return cast("Dict[str, Any]", value)


def _gone(directory: str) -> int:
    start, end = log_limit.gap(directory)
    return end - start


def _number(value: Any) -> float:
    """Return a number from the cluster, 0 if it is none, or too large."""
    if type(value) not in (int, float) or not 0 <= value < 1e18:
        return 0.0
    return float(value)


def _brief(text: Any) -> str:
    return "".join(char for char in str(text)[:BRIEF] if char.isprintable())
