"""
Keep a log within a limit: its beginning and its latest part stay.

The job writes into its log by itself, so no byte of it can be moved. What lies
in between is freed where it is: a hole is left, and every offset stays what it
was. A small file beside the log says where the hole is, and says so before the
first byte is gone: who has read anything looks there afterwards.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Tuple

from .. import box

NAME = "gap.json"
KEEP_SIZE, PUNCH_HOLE = 1, 2
# Nothing is ever written so far behind a log's end.
BEYOND = 1 << 40


class Trimmer:
    """Keeps the log of a job's directory within *limit* bytes; 0 is no limit."""

    def __init__(self, directory: str, limit: int) -> None:
        self._directory = directory
        self._limit = limit
        self._able = limit > 0 and sys.platform == "linux"

    def trim(self) -> None:
        """Free what is too much, if this disk can do that, and has room to say so."""
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
                self._able = free(fd, size + BEYOND, 1)
                if self._able:
                    # More than has to go, so that it is not done every second.
                    start, end = self._limit // 2, size - self._limit * 3 // 8
                    self._note(start, end)
                    free(fd, start, end - start)
            finally:
                os.close(fd)
        except OSError:
            return  # the next time, perhaps

    def _note(self, start: int, end: int) -> None:
        fresh = os.path.join(self._directory, "." + NAME)
        with open(fresh, "w", encoding="ascii") as file:
            json.dump([start, end], file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, os.path.join(self._directory, NAME))


def gap(directory: str) -> Tuple[int, int]:
    """Return from where to where a job's log is no longer there; (0, 0) if it is."""
    told = box.read(os.path.join(directory, NAME))
    try:
        start, end = json.loads(told or b"[0, 0]")
    except (ValueError, TypeError):
        return 0, 0
    return int(start), int(end)


def skip(directory: str, log: int, count: int) -> Tuple[int, int]:
    """
    Tell apart what has just been read from a log and what is no longer there.

    Of the *count* bytes so many are the job's; after those, so many of the log
    are gone. If any are, it goes on being read behind them.
    """
    start, end = gap(directory)
    upto = os.lseek(log, 0, os.SEEK_CUR)
    since = upto - count
    if since >= end or upto <= start:
        return count, 0
    os.lseek(log, end, os.SEEK_SET)
    here = max(start - since, 0)
    return here, end - since - here


def free(fd: int, start: int, count: int) -> bool:
    """Make a hole in a file; say whether the disk can do that."""
    try:
        # Here and not at the top: it takes long to load, and is seldom needed.
        import ctypes

        libc = ctypes.CDLL(None)
        fallocate = getattr(libc, "fallocate64", None) or libc.fallocate
        where, length = ctypes.c_longlong(start), ctypes.c_longlong(count)
        return bool(fallocate(fd, PUNCH_HOLE | KEEP_SIZE, where, length) == 0)
    except (ImportError, OSError, AttributeError):
        return False
