"""
Check what the agent reports of jobs, and turn it into frozen values.

As in `answers`, no value of a box is trusted, and every `parse` method raises
ProtocolError for an invalid one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from onebox.remote.json_fields import LATEST, Fields

STATES = ("none", "running", "exited", "lost")
CAUSE = re.compile(r"[a-z][a-z-]{0,31}")
# A run has at most this many units.
MOST_UNITS = 100_000


@dataclass(frozen=True)
class UnitProgress:
    """
    How far a job with units is; all numbers but *mean* count units.

    *total* units belong to the job. *done* includes the *skipped* ones, which were done
    before the job, and *left* includes the *running* ones. *at_once* is how many may
    run at the same time. *mean* is the mean duration in seconds of the units that
    exited with 0 in this job, None without any.
    """

    total: int
    done: int
    failed: int
    running: int
    left: int
    skipped: int
    at_once: int
    mean: float | None = None

    @classmethod
    def parse(cls, value: object) -> UnitProgress | None:
        """Return the progress in the JSON value *value*, None if that is null."""
        if value is None:
            return None
        fields = Fields(value, "progress of units")
        total = fields.integer("total", most=MOST_UNITS)
        progress = cls(
            total=total,
            done=fields.integer("done", most=total),
            failed=fields.integer("failed", most=total),
            running=fields.integer("running", most=total),
            left=fields.integer("left", most=total),
            skipped=fields.integer("skipped", most=total),
            at_once=fields.integer("at_once", most=MOST_UNITS),
            mean=fields.number_or_none("mean"),
        )
        if progress.done + progress.failed > total:
            raise fields.invalid(f"more than {total} units have ended")
        return progress


@dataclass(frozen=True)
class ExitRecord:
    """
    How a job ended.

    *code* is the exit code as a shell reports it, and *cause* is the reason ("exit",
    "signal", "oom", …). *signal* is the signal that ended the main process. The job
    wrote *log_bytes* bytes of output, and the box has dropped *log_gone* of these
    bytes. *memory_peak* is in bytes; *memory_largest* names the process that used the
    most memory. *memory_total* is the memory of the box, None if it is unknown.
    *survivors* are the commands that the main process left running. *units* is how many
    units of the job are done, None if it has none.
    """

    job: str
    code: int
    cause: str
    signal: int | None = None
    started: float = 0.0
    ended: float = 0.0
    log_bytes: int = 0
    log_gone: int = 0
    cpu_seconds: float | None = None
    memory_peak: int | None = None
    memory_largest: str = ""
    survivors: tuple[str, ...] = ()
    memory_total: int | None = None
    units: UnitProgress | None = None

    @property
    def seconds(self) -> float:
        """Return how many seconds the job ran."""
        return self.ended - self.started

    @classmethod
    def parse(cls, value: object, memory_total: int | None = None) -> ExitRecord:
        """Return the exit record that the JSON object *value* describes."""
        fields = Fields(value, "exit record")
        return cls(
            job=fields.job("job"),
            code=fields.integer("code", most=255),
            cause=fields.matching("cause", CAUSE),
            signal=fields.integer_or_none("signal", most=128),
            started=fields.number("started"),
            ended=fields.number("ended"),
            log_bytes=fields.integer("log_bytes"),
            log_gone=fields.integer_or_none("log_gone") or 0,
            cpu_seconds=fields.number_or_none("cpu_seconds"),
            memory_peak=fields.integer_or_none("memory_peak"),
            memory_largest=fields.text("memory_largest"),
            survivors=fields.texts("survivors"),
            memory_total=memory_total,
        )


def describe_waiting(why: str) -> str:
    """
    Return the phrase for a job that waits for the reason *why*.

    If the reason is that the scheduler does not answer, the job may run already.
    """
    return why if is_silent(why) else f"waits in the queue: {why}"


def is_silent(why: str) -> bool:
    """Return whether the reason is that the scheduler does not answer."""
    return "does not answer" in why


@dataclass(frozen=True)
class JobStatus:
    """
    The state of a job: "none", "running", "exited" or "lost".

    A job is "lost" if its supervisor died without an exit record, or if the exit record
    is damaged. *why* tells why a job is lost, and *alive* means that processes of a
    lost job still run. *waiting* says why a scheduler has not started a job that counts
    as running, and *engine_id* is its id in Slurm or Ray. *record* is set if and only
    if the state is "exited". *units* is None if the job has no units.
    """

    job: str
    state: str
    record: ExitRecord | None = None
    why: str = ""
    alive: bool = False
    started: float | None = None
    log_bytes: int = 0
    marks: tuple[tuple[float, int], ...] = ()
    units: UnitProgress | None = None
    waiting: str = ""
    engine_id: str = ""

    @property
    def runs(self) -> bool:
        """Return whether the job, or any process of a lost job, still runs."""
        return self.state == "running" or self.alive

    @property
    def cause(self) -> str:
        """Return why the job ended, "" if that is unknown."""
        return "" if self.record is None else self.record.cause

    @classmethod
    def parse(cls, value: object, job: str | None = None) -> JobStatus:
        """
        Return the status that the JSON object *value* describes.

        Args:
            job: The requested job, None for the latest one.
        """
        fields = Fields(value, "job status")
        state = fields.one_of("state", STATES)
        if state == "none":
            return cls(job or "", state)
        record, units = None, UnitProgress.parse(fields["units"])
        if state == "exited":
            sample = fields["sample"]
            total = None if sample is None else Sample.parse(sample).memory_total
            record = ExitRecord.parse(fields["record"], total)
            record = replace(record, units=units)
        status = cls(
            job=fields.job("job"),
            state=state,
            record=record,
            why=fields.text("why"),
            alive=fields.flag("alive"),
            started=fields.number_or_none("started"),
            log_bytes=fields.integer("log_bytes"),
            marks=fields.marks("marks"),
            units=units,
            waiting=fields.text("waiting"),
            engine_id=fields.text("engine_id"),
        )
        if job is not None and status.job != job:
            raise fields.invalid(f"it is about {status.job}, not {job}")
        if status.record is not None and status.record.job != status.job:
            raise fields.invalid(f"its record is that of {status.record.job}")
        return status


@dataclass(frozen=True)
class Sample:
    """
    The load of a box; None means that a number is unknown.

    *cpu* of the *cpus* CPUs are busy. *memory* of the *memory_total* bytes are in use.
    *job_cpu* and *job_memory* are what the job alone uses of them. *units* is the
    progress of the job's units, None if it has none. *waiting* says why a scheduler has
    not started the job yet, "" if it has started.
    """

    cpu: float | None = None
    cpus: int | None = None
    memory: int | None = None
    memory_total: int | None = None
    job_cpu: float | None = None
    job_memory: int | None = None
    units: UnitProgress | None = None
    waiting: str = ""

    @classmethod
    def parse(cls, value: object) -> Sample:
        """Return the sample that the JSON object *value* describes."""
        fields = Fields(value, "sample")
        return cls(
            cpu=fields.number_or_none("cpu", least=-LATEST),
            cpus=fields.integer_or_none("cpus"),
            memory=fields.integer_or_none("memory"),
            memory_total=fields.integer_or_none("memory_total"),
            job_cpu=fields.number_or_none("job_cpu"),
            job_memory=fields.integer_or_none("job_memory"),
            units=UnitProgress.parse(fields["units"]),
            waiting=fields.text("waiting"),
        )
