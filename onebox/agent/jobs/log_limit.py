"""
Limit the size of a job's log: keep its beginning and its latest part.

The job itself writes to the log, so no byte of it can move. The middle is freed
with a hole in the file, and every offset stays valid. The file `gap.json` holds
the range of the hole, and is written before the hole is made. A reader checks it
after each read, and so never takes the zeros of a hole for output.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Tuple

from ..box import read, replace_file

NAME = "gap.json"
KEEP_SIZE, PUNCH_HOLE = 1, 2
# Bytes behind the end of a log at which no output is ever written.
BEYOND = 1 << 40


class Trimmer:
    """Keeps the log in a job's directory within *limit* bytes; 0 is no limit."""

    def __init__(self, directory: str, limit: int) -> None:
        self._directory = directory
        self._limit = limit
        self._able = limit > 0 and sys.platform == "linux"

    def trim(self) -> None:
        """Free the middle of the log if it exceeds the limit and the disk can."""
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
                # A hole behind the end tests whether the file system can do it.
                self._able = punch_hole(fd, size + BEYOND, 1)
                if self._able:
                    # Free more than needed, so that it does not happen every second.
                    start, end = self._limit // 2, size - self._limit * 3 // 8
                    hole = json.dumps([start, end]).encode("ascii")
                    replace_file(os.path.join(self._directory, NAME), hole, sync=True)
                    punch_hole(fd, start, end - start)
            finally:
                os.close(fd)
        except OSError:
            return  # for example a full disk: the next call tries again


def gap(directory: str) -> Tuple[int, int]:
    """Return the start and the end of the log's hole, (0, 0) if there is none."""
    data = read(os.path.join(directory, NAME))
    try:
        start, end = json.loads(data or b"[0, 0]")
    except (ValueError, TypeError):
        return 0, 0
    return int(start), int(end)


def skip(directory: str, log: int, count: int) -> Tuple[int, int]:
    """
    Check the last *count* bytes that were read from a log for the hole.

    Return how many of them are output, and how many bytes of the log are missing
    after those. If any are missing, the log's position is moved behind the hole.
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
    """Free a range of a file; return False if the file system cannot."""
    try:
        # Imported here: it takes long to load, and is rarely needed.
        import ctypes

        libc = ctypes.CDLL(None)
        fallocate = getattr(libc, "fallocate64", None) or libc.fallocate
        where, length = ctypes.c_longlong(start), ctypes.c_longlong(count)
        return bool(fallocate(fd, PUNCH_HOLE | KEEP_SIZE, where, length) == 0)
    except (ImportError, OSError, AttributeError):
        return False
