"""
Check the agent's answers as they arrive, and turn them into frozen values.

A job may have replaced the agent of its box, so no answer is trusted: ids must match a
pattern, numbers have bounds, and texts are escaped for a terminal. Every function and
`parse` method raises ProtocolError for an invalid answer, unless its docstring names
another error.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from onebox.agent.file_names import Hostile, check_path, printable, raw, show
from onebox.agent.files.content_stream import FileOffer
from onebox.agent.files.manifest import Entry
from onebox.agent.jobs import session
from onebox.remote.job_answers import MOST_UNITS
from onebox.remote.json_fields import MOST_TEXTS, Fields

PUBLIC_KEY = re.compile(r"ssh-[a-z0-9-]{1,32} [A-Za-z0-9+/]{16,1024}={0,2}")
WORD = re.compile(r"[A-Za-z0-9_.+-]{1,128}")
UNIT_STATES = ("left", "running", "ended")


@dataclass(frozen=True)
class Hello:
    """
    The first answer of an agent.

    *agent* is the agent's version, *arch* the machine's architecture, and *now* the
    time (epoch seconds) by the box's clock. *deadline* is the time (epoch seconds) at
    which the box powers itself off.
    """

    agent: str
    arch: str
    now: float | None
    deadline: float | None = None

    @classmethod
    def parse(cls, value: object) -> Hello:
        """Return the first answer of an agent from the JSON object *value*."""
        fields = Fields(value, "hello")
        return cls(
            agent=fields.matching("agent", WORD),
            arch=fields.matching("arch", WORD),
            now=fields.number_or_none("now"),
            deadline=fields.number_or_none("deadline"),
        )


@dataclass(frozen=True)
class PushResult:
    """
    The answer that ends a push.

    *equal* means that the box had the same files already. *deleted* is the number of
    files that the push removed from the box.
    """

    equal: bool
    digest: str
    deleted: int

    @classmethod
    def parse(cls, value: object) -> PushResult:
        """Return the answer to a push from the JSON object *value*."""
        fields = Fields(value, "answer to a push")
        return cls(
            equal=fields.flag("equal"),
            digest=fields.text("digest"),
            deleted=fields.integer("deleted"),
        )


@dataclass(frozen=True)
class ScanResult:
    """
    The answer that ends a scan of the outputs; `agent.files.file_ops` has the details.

    *buckets* are the numbers of the manifest's buckets that differ; the box has sent
    the entries in these buckets. *missing* are roots that do not exist. *nowhere* are
    links that lead to no file or folder. *outputs_changed* is whether any output is new
    or changed since the push. *changed_outside* is the number of new or changed files
    outside of the outputs.
    """

    buckets: tuple[int, ...]
    missing: tuple[str, ...]
    special: tuple[bytes, ...]
    unreadable: tuple[bytes, ...]
    unstable: tuple[bytes, ...]
    nowhere: tuple[bytes, ...]
    outputs_changed: bool
    changed_outside: int
    changed_outside_names: tuple[bytes, ...]

    @classmethod
    def parse(cls, value: object, roots: frozenset[str], count: int) -> ScanResult:
        """
        Return the answer to a scan of *roots* from the JSON object *value*.

        Args:
            count: How many bucket hashes were sent to the box.
        """
        fields = Fields(value, "answer to a scan")
        missing = fields.names("missing")
        unknown = [name for name in missing if name not in roots]
        if unknown:
            raise fields.invalid(f"{printable(unknown[0])} was not asked for")
        return cls(
            buckets=fields.integers("buckets", count, most=count - 1) if count else (),
            missing=missing,
            special=fields.paths("special"),
            unreadable=fields.paths("unreadable"),
            unstable=fields.paths("unstable"),
            nowhere=fields.paths("nowhere"),
            outputs_changed=fields.flag("outputs_changed"),
            changed_outside=fields.integer_or_none("changed_outside") or 0,
            changed_outside_names=fields.paths("changed_outside_names")[:MOST_TEXTS],
        )


def buckets(value: object, count: int) -> tuple[int, ...]:
    """
    Return the numbers of the differing buckets, which the JSON object *value* lists.

    *count* is the number of buckets that were compared.
    """
    return Fields(value, "list of buckets").integers("buckets", count, most=count - 1)


def claimed(value: object) -> bool:
    """Return whether the box lets this client notify, from the JSON object *value*."""
    return Fields(value, "answer to a claim").flag("claimed")


def refusal(value: object) -> tuple[str, str]:
    """Return the kind and the message of the error answer *value*."""
    fields = Fields(value, "refusal")
    return fields.text("kind"), fields.text("message")


def push_row(row: object) -> tuple[bytes, str, list[Any]]:
    """
    Check a row from the box; each row is about one path of a push.

    Return the path, the kind of the row ("gone", "change" or "lack"), and the values to
    pass to `offer`.

    Raises:
        Hostile: The row is invalid.
    """
    if not isinstance(row, list) or len(row) not in (2, 6):
        raise Hostile("an invalid row")
    path, kind, *offered = row
    if not isinstance(path, str) or kind not in ("gone", "change", "lack"):
        raise Hostile("an invalid row")
    try:
        return raw(path), kind, offered
    except UnicodeEncodeError as error:
        raise Hostile("an invalid path") from error


def offer(entry: Entry, values: list[Any]) -> FileOffer:
    """
    Return the file *entry* together with what the box already has of it.

    Args:
        values: The number of bytes that the box has, their hash, whether they are the
            complete file, and the block hashes of the box's previous version. The list
            is empty if the box has nothing of the file.

    Raises:
        Hostile: The values are invalid.
    """
    if entry.kind != "f":
        raise Hostile(f"{show(entry.path)} is no file")
    if not values:
        return FileOffer(entry)
    offset, sha, whole, blocks = values
    typed = isinstance(sha, str) and isinstance(blocks, str) and type(whole) is bool
    if not typed or type(offset) is not int or not 0 <= offset <= entry.size:
        raise Hostile(f"invalid offset or hash of {show(entry.path)}")
    try:
        return FileOffer.from_json(entry, offset, sha, whole, blocks)
    except ValueError as error:
        raise Hostile(f"invalid hash of {show(entry.path)}") from error


def public_key(value: object) -> str:
    """Return the public host key that the JSON object *value* contains."""
    return Fields(value, "answer about a host key").matching("public", PUBLIC_KEY)


@dataclass(frozen=True)
class Changes:
    """
    The files on the box that are new or changed since the push and since a time.

    *paths* are the first of *count* files; *in_home* are those that are in the home
    folder but not in the work folder. *pushed* maps a path to the marks with which it
    was pushed.
    """

    count: int
    paths: tuple[bytes, ...]
    in_home: tuple[bytes, ...]
    pushed: dict[bytes, frozenset[bytes]]

    @classmethod
    def parse(cls, value: object) -> Changes:
        """Return the changes that the JSON object *value* contains."""
        fields = Fields(value, "list of changed files")
        found = fields.paths("names")
        pushed = fields["pushed"]
        if not isinstance(pushed, dict) or not all(
            isinstance(marks, list) and all(isinstance(mark, str) for mark in marks)
            for marks in pushed.values()
        ):
            raise fields.invalid("pushed")
        try:
            for path in found:
                check_path(path)
            marks_of = {
                raw(name): frozenset(raw(mark) for mark in marks)
                for name, marks in pushed.items()
            }
        except (Hostile, UnicodeEncodeError) as error:
            raise fields.invalid(str(error)) from error
        return cls(
            fields.integer("count"),
            tuple(path for path in found if not path.startswith(b"~/")),
            tuple(path for path in found if path.startswith(b"~/")),
            marks_of,
        )


def session_name(value: object) -> str:
    """Return the name of a session that the JSON object *value* contains."""
    return Fields(value, "answer about a session").matching("session", session.NAME)


def dropped_log_bytes(value: object, most: int) -> int:
    """
    Return how many bytes of a log the box has dropped, from the JSON object *value*.

    A number above *most* is invalid.
    """
    return Fields(value, "note on a log").integer("gone", least=1, most=most)


@dataclass(frozen=True)
class UnitLogAnswer:
    """
    The answer that ends a part of a unit's log.

    *state* is "left", "running" or "ended". *code* is the exit code, None if it is
    unknown. *size* is the length of the whole log in bytes.
    """

    job: str
    unit: int
    state: str
    code: int | None
    size: int


def unit_log(value: object) -> UnitLogAnswer:
    """Return the answer about a unit's log from the JSON object *value*."""
    fields = Fields(value, "answer about a unit's log")
    if fields["state"] == "ended" and fields["code"] is None:
        raise fields.invalid("a unit has ended without an exit code")
    return UnitLogAnswer(
        job=fields.job("job"),
        unit=fields.integer("unit", least=1, most=MOST_UNITS),
        state=fields.one_of("state", UNIT_STATES),
        code=fields.integer_or_none("code", most=255),
        size=fields.integer("size"),
    )
