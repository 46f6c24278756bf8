"""
Limit the size of a job's log: keep its beginning and its latest part.

The job itself writes to the log, so no byte of the log can be moved. Instead, a hole
in the file frees the middle of the log, and every offset stays valid. The file
`gap.json` holds the range of the hole, and is written before the hole is made. A
reader checks `gap.json` after each read, and so never treats the zeros of the hole as
output.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Tuple

from ..box import read, replace_file

NAME = "gap.json"
KEEP_SIZE, PUNCH_HOLE = 1, 2
# A trial hole is made this many bytes behind the end of the log. No output is ever
# written so far behind the end.
BEYOND = 1 << 40


class Trimmer:
    """Keeps the log in a job's directory within *limit* bytes; 0 means no limit."""

    def __init__(self, directory: str, limit: int) -> None:
        self._directory = directory
        self._limit = limit
        self._able = limit > 0 and sys.platform == "linux"

    def trim(self) -> None:
        """
        Free the middle of the log if the log is longer than its limit.

        If the file system does not support holes, the log stays as it is.
        """
        if not self._able:
            return
        log = os.path.join(self._directory, "log")
        start, end = gap(self._directory)
        try:
            size = os.stat(log).st_size
            if size - (end - start) <= self._limit:
                return
            fd = os.open(log, os.O_WRONLY | os.O_CLOEXEC)
            try:
                # A hole behind the end of the log changes nothing. It only tests
                # whether the file system supports holes.
                self._able = punch_hole(fd, size + BEYOND, 1)
                if self._able:
                    # More than needed is freed, so that the log is not trimmed every
                    # second.
                    start, end = self._limit // 2, size - self._limit * 3 // 8
                    hole = json.dumps([start, end]).encode("ascii")
                    replace_file(os.path.join(self._directory, NAME), hole, sync=True)
                    punch_hole(fd, start, end - start)
            finally:
                os.close(fd)
        except OSError:
            # The disk may be full, for example. The next call tries again.
            return


def gap(directory: str) -> Tuple[int, int]:
    """
    Return the start and the end of the hole in a job's log.

    Return (0, 0) if there is no hole.
    """
    data = read(os.path.join(directory, NAME))
    try:
        start, end = json.loads(data or b"[0, 0]")
    except (ValueError, TypeError):
        return 0, 0
    return int(start), int(end)


def skip(directory: str, log: int, count: int) -> Tuple[int, int]:
    """
    Check whether the bytes that were just read from a log include a part of its hole.

    *count* is the number of these bytes. Return two numbers: how many of these bytes
    are output before the hole, and how many bytes of the log are missing after this
    output. If bytes are missing, move the position of the descriptor *log* to the end
    of the hole.
    """
    start, end = gap(directory)
    upto = os.lseek(log, 0, os.SEEK_CUR)
    since = upto - count
    if since >= end or upto <= start:
        return count, 0
    os.lseek(log, end, os.SEEK_SET)
    here = max(start - since, 0)
    return here, end - since - here


def punch_hole(fd: int, start: int, count: int) -> bool:
    """
    Make a hole of *count* bytes in a file, beginning at *start*.

    Return False if that fails, for example because the file system does not support
    holes.
    """
    try:
        # ctypes is imported here, because it takes long to load and is rarely needed.
        import ctypes

        libc = ctypes.CDLL(None)
        fallocate = getattr(libc, "fallocate64", None) or libc.fallocate
        where, length = ctypes.c_longlong(start), ctypes.c_longlong(count)
        return bool(fallocate(fd, PUNCH_HOLE | KEEP_SIZE, where, length) == 0)
    except (ImportError, OSError, AttributeError):
        return False
