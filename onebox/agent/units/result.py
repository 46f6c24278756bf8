"""
The folder of a unit: prepare it, and write and read the unit's result in it.

`unit.json` is the result of a unit that has ended. `.unit-run` names the run of a unit
that has started and not ended; its files may be continued in the same run only.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import stat
from typing import Any, Dict

from .plan import Head, Unit

NAME = "unit.json"
LOG = "unit.log"
FRESH = ".unit.json"
MARKER = ".unit-run"
# A larger unit.json was not written by the agent.
MOST = 256 << 10
# The last line of a log is looked for in so many bytes, and shortened to this length.
TAIL = 8 << 10
LONGEST_LINE = 200
# This stands in a log where its middle was dropped.
GAP = b"\n[onebox: the middle of this log is left out]\n"
# Cursor movements and colours of a terminal.
ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)")


def folder(work: str, unit: Unit) -> str:
    """Return the absolute path of a unit's folder."""
    # The name is UTF-8 in the request, and fsdecode may use another encoding.
    raw = unit.outputs.rstrip("/").encode("utf-8", "surrogateescape")
    return os.path.join(work, os.fsdecode(raw))


def prepare(work: str, unit: Unit, run: str) -> None:
    """
    Create the folder of a unit that is about to start, and remove its old result.

    If the folder has files of another run, it is emptied. Files of which no run is
    known stay, such as checkpoints that a client has restored. Raises OSError.
    """
    path = folder(work, unit)
    os.makedirs(path, exist_ok=True)
    owner = _run_of(path)
    if owner not in ("", run):
        _empty(work, unit)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(path, NAME))
    if owner != run or not os.path.exists(os.path.join(path, MARKER)):
        _write(os.path.join(path, MARKER), run.encode("utf-8") + b"\n")


def is_done(path: str, head: Head, unit: Unit) -> bool:
    """Return whether the unit with the folder *path* was done before in this run."""
    result = read(path)
    return (
        result.get("code") == 0
        and _belongs(result, head, unit)
        and result.get("parameters") == head.parameters(unit)
        and result.get("command") == unit.text
    )


def read_own(path: str, head: Head, unit: Unit) -> Dict[str, Any]:
    """Return the result of a unit in this run, {} if it has not ended."""
    result = read(path)
    return result if _belongs(result, head, unit) else {}


def read(path: str) -> Dict[str, Any]:
    """Return the result in the folder *path*, {} if it is missing or damaged."""
    try:
        result = json.loads(read_file(os.path.join(path, NAME), MOST))
    except (OSError, ValueError, RecursionError):
        return {}
    return result if isinstance(result, dict) else {}


def write(path: str, result: Dict[str, Any]) -> None:
    """
    Write the result of a unit to its folder, complete or not at all.

    Raises OSError, for example if the folder is missing.
    """
    fresh = os.path.join(path, FRESH)
    try:
        _write(fresh, json.dumps(result).encode("ascii") + b"\n")
        os.replace(fresh, os.path.join(path, NAME))
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(fresh)
        raise
    with contextlib.suppress(OSError):
        os.unlink(os.path.join(path, MARKER))


def open_log(path: str) -> int:
    """Open the log in the folder *path* to append to it. Raises OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
    fd = os.open(os.path.join(path, LOG), flags | os.O_CLOEXEC, 0o644)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "%s is no file" % LOG)
    os.set_blocking(fd, True)
    return fd


def log_size(path: str) -> int:
    """Return the size of the log in the folder *path*, 0 if it has none."""
    try:
        return os.lstat(os.path.join(path, LOG)).st_size
    except OSError:
        return 0


def last_line(path: str, start: int) -> str:
    """
    Return the last line with text of the log in the folder *path*, "" if none.

    Only what was written behind the offset *start* counts. A carriage return ends a
    line too. Characters that cannot be printed are left out.
    """
    try:
        data = read_file(
            os.path.join(path, LOG), TAIL, max(start, log_size(path) - TAIL)
        )
    except OSError:
        return ""
    text = ESCAPES.sub("", data.decode("utf-8", "replace")).replace("\r", "\n")
    for line in reversed(text.split("\n")):
        shown = "".join(filter(str.isprintable, line.replace("\t", " "))).strip()
        if shown:
            return shown[:LONGEST_LINE]
    return ""


def shorten_log(path: str, limit: int) -> bool:
    """
    Drop the middle of the log in the folder *path* if it has more than *limit* bytes.

    0 means no limit. A unit appends to its log, so the file can be cut while the unit
    writes to it; some of the output of that moment may be dropped too. Return whether
    something was dropped.
    """
    size = log_size(path)
    if not limit or size <= limit:
        return False
    flags = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(os.path.join(path, LOG), flags)
    except OSError:
        return False
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return False
        tail = os.pread(fd, limit // 4, size - limit // 4)
        os.ftruncate(fd, limit // 2)
        os.write(fd, GAP + tail)
    except OSError:
        # The file is cut, and the disk may be full.
        return True
    finally:
        os.close(fd)
    return True


def read_file(path: str, most: int, start: int = 0) -> bytes:
    """
    Return up to *most* bytes of a regular file, from the offset *start* on.

    Raises OSError, also if the path leads to a link or to another kind of file.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "%s is no file" % path)
        return os.pread(fd, most, start)
    finally:
        os.close(fd)


def _run_of(path: str) -> str:
    """Return the run to which the files in the folder *path* belong, "" if unknown."""
    try:
        marker = read_file(os.path.join(path, MARKER), 1 << 10)
        return marker.decode("utf-8", "replace").strip()
    except OSError:
        return str(read(path).get("run", ""))


def _belongs(result: Dict[str, Any], head: Head, unit: Unit) -> bool:
    return result.get("run") == head.run and result.get("unit") == unit.number


def _write(path: str, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(path, flags | os.O_NONBLOCK, 0o644)
    try:
        if os.write(fd, data) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(fd)


def _empty(work: str, unit: Unit) -> None:
    """
    Remove everything in a unit's folder.

    Raises OSError, also if the folder is reached through a link: what is there may
    belong to something else.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    parts = os.path.relpath(folder(work, unit), work).split("/")
    fd = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts:
            inner = os.open(part, flags, dir_fd=fd)
            os.close(fd)
            fd = inner
        _remove_entries(fd)
    except RecursionError as error:
        raise OSError(errno.ELOOP, "its folder is too deep to be emptied") from error
    finally:
        os.close(fd)


def _remove_entries(folder_fd: int) -> None:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.scandir(folder_fd) as found:
        entries = list(found)
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            fd = os.open(entry.name, flags, dir_fd=folder_fd)
            try:
                _remove_entries(fd)
            finally:
                os.close(fd)
            os.rmdir(entry.name, dir_fd=folder_fd)
        else:
            os.unlink(entry.name, dir_fd=folder_fd)
