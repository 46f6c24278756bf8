"""
The answers of the agent as frozen values, checked once, where they arrive.

A job may have replaced the agent of its box, so that no answer is trusted: ids
follow one pattern, numbers have bounds, and texts are escaped for a terminal. What
breaks a rule raises `ProtocolError`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from onebox.agent.file_names import Hostile, printable, raw, show
from onebox.agent.files.manifest import Entry
from onebox.agent.files.stream import Offer
from onebox.agent.jobs import state
from onebox.errors import ProtocolError

# No size, offset or count of a real box is larger.
LARGEST = (1 << 63) - 1
# Seconds, since the epoch or of anything: the year 5138.
LATEST = 1e11
# How many characters of a text are used, and how many items of a list.
LONGEST_TEXT = 2000
MOST_TEXTS = 100
STATES = ("none", "running", "exited", "lost")
CAUSE = re.compile(r"[a-z][a-z-]{0,31}")
PUBLIC_KEY = re.compile(r"ssh-[a-z0-9-]{1,32} [A-Za-z0-9+/]{16,1024}={0,2}")
WORD = re.compile(r"[A-Za-z0-9_.+-]{1,128}")


@dataclass(frozen=True)
class ExitRecord:
    """
    How a job ended.

    *code* is the exit code as a shell shows it, *cause* why the job ended ("exit",
    "signal", "oom", …), *signal* the signal that ended its main process. Of
    *log_bytes* of output *log_gone* were dropped by the box. *memory_peak* is in
    bytes, *memory_largest* names the process that used most of it. *survivors* are
    the commands that the job left running.
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

    @property
    def seconds(self) -> float:
        """Return how long the job ran."""
        return self.ended - self.started

    @classmethod
    def parse(cls, value: object) -> ExitRecord:
        """Check an exit record. Raises ProtocolError."""
        told = Fields(value, "exit record")
        return cls(
            job=told.job("job"),
            code=told.integer("code", most=255),
            cause=told.matching("cause", CAUSE),
            signal=told.integer_or_none("signal", most=128),
            started=told.number("started"),
            ended=told.number("ended"),
            log_bytes=told.integer("log_bytes"),
            # Records of earlier versions have none of these.
            log_gone=told.integer_or_none("log_gone") or 0,
            cpu_seconds=told.number_or_none("cpu_seconds"),
            memory_peak=told.integer_or_none("memory_peak"),
            memory_largest=told.text("memory_largest"),
            survivors=told.texts("survivors"),
        )


@dataclass(frozen=True)
class JobStatus:
    """
    What the agent knows about a job.

    *state* is "none", "running", "exited" or "lost"; *record* is set exactly if it is
    "exited". *why* is the reason of a lost job; *alive* means that processes of a lost
    job still run.
    """

    job: str
    state: str
    record: ExitRecord | None = None
    why: str = ""
    alive: bool = False
    started: float | None = None
    log_bytes: int = 0

    @property
    def runs(self) -> bool:
        """Tell whether the job runs, or processes that it left when it was lost."""
        return self.state == "running" or self.alive

    @property
    def cause(self) -> str:
        """Return why the job ended, "" if that is not known."""
        return "" if self.record is None else self.record.cause

    @classmethod
    def parse(cls, value: object, job: str | None = None) -> JobStatus:
        """
        Check the answer about a job. Raises ProtocolError.

        Args:
            job: The job that was asked for, None for the latest one.
        """
        told = Fields(value, "job status")
        state = told.one_of("state", STATES)
        if state == "none":
            return cls(job or "", state)
        status = cls(
            job=told.job("job"),
            state=state,
            record=ExitRecord.parse(told["record"]) if state == "exited" else None,
            why=told.text("why"),
            alive=told.flag("alive"),
            started=told.number_or_none("started"),
            log_bytes=told.integer("log_bytes"),
        )
        if job is not None and status.job != job:
            raise told.wrong(f"it is about {status.job}, not {job}")
        if status.record is not None and status.record.job != status.job:
            raise told.wrong(f"its record is that of {status.record.job}")
        return status


@dataclass(frozen=True)
class Sample:
    """What a box uses at a moment: CPUs and bytes; None where it is not known."""

    cpu: float | None = None
    cpus: int | None = None
    memory: int | None = None
    memory_total: int | None = None

    @classmethod
    def parse(cls, value: object) -> Sample:
        """Check a sample. Raises ProtocolError."""
        told = Fields(value, "sample")
        return cls(
            cpu=told.number_or_none("cpu", least=-LATEST),
            cpus=told.integer_or_none("cpus"),
            memory=told.integer_or_none("memory"),
            memory_total=told.integer_or_none("memory_total"),
        )


@dataclass(frozen=True)
class Hello:
    """
    What a client learns when it meets the box: versions, machine, clock.

    *deadline* is the moment (epoch) at which the box itself means to power off.
    """

    agent: str
    arch: str
    now: float | None
    deadline: float | None = None

    @classmethod
    def parse(cls, value: object) -> Hello:
        """Check the first answer of an agent. Raises ProtocolError."""
        told = Fields(value, "hello")
        return cls(
            agent=told.matching("agent", WORD),
            arch=told.matching("arch", WORD),
            now=told.number_or_none("now"),
            deadline=told.number_or_none("deadline"),
        )


@dataclass(frozen=True)
class Differing:
    """The parts of a manifest that differ on the box."""

    parts: tuple[int, ...]

    @classmethod
    def parse(cls, value: object, count: int) -> Differing:
        """Check which of *count* parts differ. Raises ProtocolError."""
        told = Fields(value, "list of parts")
        return cls(told.integers("parts", count, most=count - 1))


@dataclass(frozen=True)
class PushResult:
    """What the box says at the end of a push."""

    equal: bool
    digest: str
    deleted: int

    @classmethod
    def parse(cls, value: object) -> PushResult:
        """Check the answer to a push. Raises ProtocolError."""
        told = Fields(value, "answer to a push")
        return cls(
            equal=told.flag("equal"),
            digest=told.text("digest"),
            deleted=told.integer("deleted"),
        )


@dataclass(frozen=True)
class ScanResult:
    """
    What the box says at the end of a scan.

    *parts* are the parts of the manifest that were sent; *missing* names the roots
    that do not exist, *nowhere* the links that lead to no file or folder. *made* is
    False if no output is new or changed since the push, *left* counts such files
    outside of the outputs.
    """

    parts: tuple[int, ...]
    missing: tuple[str, ...]
    special: tuple[bytes, ...]
    unreadable: tuple[bytes, ...]
    unstable: tuple[bytes, ...]
    nowhere: tuple[bytes, ...]
    made: bool
    left: int
    left_names: tuple[bytes, ...]

    @classmethod
    def parse(cls, value: object, roots: frozenset[str], count: int) -> ScanResult:
        """Check the answer to a scan of *roots*. Raises ProtocolError."""
        told = Fields(value, "answer to a scan")
        missing = told.names("missing")
        strange = [name for name in missing if name not in roots]
        if strange:
            raise told.wrong(f"{printable(strange[0])} was not asked for")
        return cls(
            parts=told.integers("parts", count, most=count - 1) if count else (),
            missing=missing,
            special=told.paths("special"),
            unreadable=told.paths("unreadable"),
            unstable=told.paths("unstable"),
            nowhere=told.paths("nowhere"),
            made=told.flag("made"),
            left=told.integer_or_none("left") or 0,
            left_names=told.paths("left_names")[:MOST_TEXTS],
        )


def refusal(value: object) -> tuple[str, str]:
    """Check why the agent refused: the kind and the message. Raises ProtocolError."""
    told = Fields(value, "refusal")
    return told.text("kind"), told.text("message")


def push_row(row: object) -> tuple[bytes, str, list[Any]]:
    """
    Check a row of what the box lacks: path, kind, and what it has of the file.

    Raises:
        Hostile: It is no such row.
    """
    if not isinstance(row, list) or len(row) not in (2, 6):
        raise Hostile("no row of a list of files")
    path, kind, *rest = row
    if not isinstance(path, str) or kind not in ("gone", "settle", "lack"):
        raise Hostile("no row of a list of files")
    try:
        return raw(path), kind, rest
    except UnicodeEncodeError as error:
        raise Hostile("no path") from error


def offer(entry: Entry, rest: list[Any]) -> Offer:
    """
    Check what the box has of a file already. Raises Hostile.

    Args:
        rest: Offset, hash, whether that is a whole file, hashes of blocks; or nothing.
    """
    found = Offer(entry)
    if entry.kind != "f":
        raise Hostile(f"{show(entry.path)} is no file")
    if not rest:
        return found
    offset, sha, whole, blocks = rest
    typed = isinstance(sha, str) and isinstance(blocks, str) and type(whole) is bool
    if not typed or type(offset) is not int or not 0 <= offset <= entry.size:
        raise Hostile(f"{show(entry.path)}: no offset and hash")
    try:
        return found.taken(offset, sha, whole, blocks)
    except ValueError as error:
        raise Hostile(f"{show(entry.path)}: no hash") from error


def public_key(value: object) -> str:
    """Check the host key in an answer. Raises ProtocolError."""
    return Fields(value, "answer about a host key").matching("public", PUBLIC_KEY)


def gone(value: object, most: int) -> int:
    """Check how many bytes of a log no longer exist. Raises ProtocolError."""
    return Fields(value, "note on a log").integer("gone", least=1, most=most)


class Fields:
    """The fields of a JSON object from a box, each checked as it is read."""

    def __init__(self, value: object, what: str) -> None:
        self._what = what
        if not isinstance(value, dict):
            raise self.wrong("it is no object")
        self._value: Mapping[str, Any] = value

    def __getitem__(self, name: str) -> object:
        return self._value.get(name)

    def wrong(self, why: str) -> ProtocolError:
        """Return the error that says what is wrong with the object."""
        return ProtocolError(
            f"the box sent no valid {self._what}: {why}",
            next="inv ssh looks at the box; inv teardown --discard-outputs gives it up",
        )

    def job(self, name: str) -> str:
        """Return the id of a job: it names files here."""
        return self.matching(name, state.JOB)

    def matching(self, name: str, pattern: re.Pattern[str]) -> str:
        """Return a text that follows a pattern."""
        value = self[name]
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise self._refused(name)
        return value

    def one_of(self, name: str, words: tuple[str, ...]) -> str:
        """Return a text that is one of some words."""
        value = self[name]
        if not isinstance(value, str) or value not in words:
            raise self._refused(name)
        return value

    def text(self, name: str) -> str:
        """Return a text as it can be shown on any terminal; "" if it is absent."""
        value = self[name]
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self._refused(name)
        return printable(value[:LONGEST_TEXT])

    def texts(self, name: str) -> tuple[str, ...]:
        """Return texts as they can be shown on any terminal."""
        return tuple(
            printable(text[:LONGEST_TEXT]) for text in self.names(name)[:MOST_TEXTS]
        )

    def names(self, name: str) -> tuple[str, ...]:
        """Return texts as they are; none if they are absent."""
        value = self[name]
        if value is None:
            return ()
        if not isinstance(value, list):
            raise self._refused(name)
        if not all(isinstance(text, str) for text in value):
            raise self._refused(name)
        return tuple(value)

    def paths(self, name: str) -> tuple[bytes, ...]:
        """Return paths, of any bytes; none if they are absent."""
        try:
            return tuple(raw(path) for path in self.names(name))
        except UnicodeEncodeError as error:
            raise self._refused(name) from error

    def flag(self, name: str) -> bool:
        """Return a truth value; False if it is absent."""
        value = self[name]
        if value is not None and not isinstance(value, bool):
            raise self._refused(name)
        return bool(value)

    def integer(self, name: str, *, least: int = 0, most: int = LARGEST) -> int:
        """Return a whole number within bounds."""
        value = self[name]
        if type(value) is not int or not least <= value <= most:
            raise self._refused(name)
        return value

    def integer_or_none(self, name: str, *, most: int = LARGEST) -> int | None:
        """Return a whole number within bounds, None if it is absent."""
        return None if self[name] is None else self.integer(name, most=most)

    def integers(self, name: str, count: int, *, most: int) -> tuple[int, ...]:
        """Return at most *count* whole numbers within bounds."""
        value = self[name]
        if not isinstance(value, list) or len(value) > count:
            raise self._refused(name)
        if not all(type(one) is int and 0 <= one <= most for one in value):
            raise self._refused(name)
        return tuple(value)

    def number(self, name: str, *, least: float = 0.0, most: float = LATEST) -> float:
        """Return a finite number within bounds."""
        value = self[name]
        if type(value) not in (int, float) or not isinstance(value, (int, float)):
            raise self._refused(name)
        if not least <= value <= most or not math.isfinite(value):
            raise self._refused(name)
        return float(value)

    def number_or_none(self, name: str, *, least: float = 0.0) -> float | None:
        """Return a finite number within bounds, None if it is absent."""
        return None if self[name] is None else self.number(name, least=least)

    def _refused(self, name: str) -> ProtocolError:
        value = self[name]
        if isinstance(value, str):
            shown = f'"{printable(value[:80])}"'
        elif isinstance(value, (dict, list)):
            shown = "a list" if isinstance(value, list) else "an object"
        elif type(value) is int and abs(value) > LARGEST:
            shown = "a huge number"
        else:
            shown = str(value)
        return self.wrong(f"{name} is {shown}")
