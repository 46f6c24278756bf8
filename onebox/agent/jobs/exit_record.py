"""
The exit record: the one truth about how a job ended.

It is a kibibyte of JSON, blanks and a checksum. The room for it is taken when
the job starts, so that a full disk cannot keep it from being written, and it
gets its name by `link`, so that it is there whole or not at all, and only once.
"""

from __future__ import annotations

import json
import os
import zlib
from typing import Any, Dict, List, Optional

SIZE = 1024
PREPARED = ".exit.pre"
NAME = "exit"


class Damaged(Exception):
    """What stands in the record's place was not written by a supervisor."""


def prepare(directory: str) -> None:
    """Take the room that the record will need."""
    _overwrite(os.path.join(directory, PREPARED), b"\0" * SIZE)
    sync(directory)


def publish(directory: str, record: Dict[str, Any]) -> None:
    """Write the record for good. Raises `FileExistsError` if there is one."""
    prepared = os.path.join(directory, PREPARED)
    _overwrite(prepared, pack(record))
    os.link(prepared, os.path.join(directory, NAME))
    sync(directory)


def read(directory: str) -> Optional[Dict[str, Any]]:
    """Return the record, None if there is none yet. Raises `Damaged`."""
    try:
        with open(os.path.join(directory, NAME), "rb") as file:
            data = file.read(SIZE + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Damaged(str(error)) from error
    return unpack(data)


def pack(record: Dict[str, Any]) -> bytes:
    """Encode a record; its list of survivors is shortened until it fits."""
    names: List[str] = list(record.get("survivors", []))
    kept = len(names)
    while True:
        if kept < len(names):
            left = len(names) - kept
            record = dict(record, survivors=[*names[:kept], "and %d more" % left])
        body = json.dumps(record, separators=(",", ":")).encode("ascii")
        if len(body) <= SIZE - 10 or not kept:
            break
        kept -= 1
    body = body.ljust(SIZE - 10)
    return body + b" %08x\n" % zlib.crc32(body)


def unpack(data: bytes) -> Dict[str, Any]:
    """Decode a record. Raises `Damaged`."""
    body, check = data[: SIZE - 10], data[SIZE - 10 :]
    if check != b" %08x\n" % zlib.crc32(body):
        raise Damaged("the checksum is wrong")
    try:
        record = json.loads(body)
    except ValueError as error:
        raise Damaged(str(error)) from error
    if not isinstance(record, dict):
        raise Damaged("not an object")
    return record


def sync(directory: str) -> None:
    """Make the names in a directory last."""
    fd = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _overwrite(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.fsync(fd)
    finally:
        os.close(fd)
