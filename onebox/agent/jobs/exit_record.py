"""
Write and read the exit record of a job, which is written once and is never incomplete.

The record is JSON padded to one kibibyte, with a checksum. Its disk space is allocated
when the job starts, so that it can be written to a full disk. It is published with
`link`, so that it appears complete or not at all, and only once.
"""

from __future__ import annotations

import json
import os
import zlib
from typing import NamedTuple, Optional, Tuple

from ..box import sync_folder

SIZE = 1024
PREPARED = ".exit.pre"
NAME = "exit"


class Damaged(Exception):
    """The exit record cannot be read, or its contents are damaged."""


class StoredExitRecord(NamedTuple):
    """
    How a job ended and what it used, as the box stores it.

    *code* is the exit code as a shell shows it, *signal* the signal that ended the main
    process, *cause* why the job ended ("exit", "signal", "cancel", "oom", …). The job
    printed *log_bytes* bytes, of which *log_gone* were dropped from the log. *started*
    and *ended* are seconds since the epoch; *seconds* is measured by a clock that
    cannot be set. Memory is in bytes; *memory_largest* names the process that used the
    most memory. *survivors* are the commands that the main process left running.
    """

    job: str
    code: int
    signal: Optional[int] = None
    cause: str = "exit"
    log_bytes: int = 0
    log_gone: int = 0
    boot_id: str = ""
    started: float = 0.0
    ended: float = 0.0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    memory_peak: int = 0
    memory_largest: str = ""
    box_memory_peak: int = 0
    survivors: Tuple[str, ...] = ()


def prepare(directory: str) -> None:
    """Allocate the disk space of the exit record in a job's *directory*."""
    _overwrite(os.path.join(directory, PREPARED), b"\0" * SIZE)
    sync_folder(directory)


def publish(directory: str, record: StoredExitRecord) -> None:
    """Write the record durably. Raises `FileExistsError` if one exists."""
    prepared = os.path.join(directory, PREPARED)
    _overwrite(prepared, pack(record))
    os.link(prepared, os.path.join(directory, NAME))
    sync_folder(directory)


def read(directory: str) -> Optional[StoredExitRecord]:
    """
    Return the exit record in a job's *directory*, None if there is none yet.

    Raises `Damaged` if the record is damaged.
    """
    try:
        with open(os.path.join(directory, NAME), "rb") as file:
            data = file.read(SIZE + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Damaged(str(error)) from error
    return unpack(data)


def pack(record: StoredExitRecord) -> bytes:
    """
    Encode a record.

    Survivors are left out until the record fits into `SIZE` bytes. The last item of
    their list then says how many were left out.
    """
    names = record.survivors
    count = len(names)
    while True:
        if count < len(names):
            rest = "and %d more" % (len(names) - count)
            record = record._replace(survivors=(*names[:count], rest))
        body = json.dumps(record._asdict(), separators=(",", ":")).encode("ascii")
        if len(body) <= SIZE - 10 or not count:
            break
        count -= 1
    body = body.ljust(SIZE - 10)
    return body + b" %08x\n" % zlib.crc32(body)


def unpack(data: bytes) -> StoredExitRecord:
    """Decode a record. Raises `Damaged` if its checksum or its contents are wrong."""
    body, check = data[: SIZE - 10], data[SIZE - 10 :]
    if check != b" %08x\n" % zlib.crc32(body):
        raise Damaged("the checksum is wrong")
    try:
        fields = json.loads(body)
        fields["survivors"] = tuple(fields["survivors"])
        return StoredExitRecord(**fields)
    except (ValueError, TypeError, KeyError) as error:
        raise Damaged(str(error)) from error


def _overwrite(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.fsync(fd)
    finally:
        os.close(fd)
