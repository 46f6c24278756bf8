"""
Record when a job printed what: marks of the time and the length of the log.

The job itself writes to the log, so the log has no times. A mark says that at a time
the log had a length. The marks let a client show the output of the last minutes.
"""

from __future__ import annotations

import os
from typing import List, Tuple

from ..box import read, replace_file

NAME = "times"
# With more marks than this, every second mark of the older half is dropped. So the
# marks of the latest output stay close together, however long the job runs.
MOST = 4000
# No mark of a real log has a later time (epoch seconds) or a greater length.
LATEST = 1e11
LONGEST = 1 << 62


class Marker:
    """
    Adds a mark to the file of marks in a job's directory when the log has grown.

    The caller calls `mark` at most once a second.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._path = os.path.join(directory, NAME)
        self._marks: List[Tuple[float, int]] = []

    def mark(self, now: float) -> None:
        """
        Add a mark for the time *now* (epoch seconds) if the log has grown.

        If the disk is full, no mark is stored.
        """
        try:
            size = os.stat(os.path.join(self._directory, "log")).st_size
            if size == (self._marks[-1][1] if self._marks else 0):
                return
            self._marks.append((round(now, 1), size))
            if len(self._marks) > MOST:
                half = len(self._marks) // 2
                self._marks[:half] = self._marks[:half:2]
                replace_file(self._path, _lines(self._marks), sync=False)
                return
            fd = os.open(
                self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
            )
            try:
                os.write(fd, _lines(self._marks[-1:]))
            finally:
                os.close(fd)
        except OSError:
            return


def marks(directory: str) -> List[Tuple[float, int]]:
    """
    Return the marks of a job's log, oldest first: time (epoch seconds) and length.

    Lines that a full disk or a power cut has damaged are left out.
    """
    found: List[Tuple[float, int]] = []
    for line in read(os.path.join(directory, NAME)).split(b"\n"):
        try:
            at, size = line.split()
            mark = float(at), int(size)
        except ValueError:
            continue
        if 0 <= mark[0] < LATEST and 0 <= mark[1] < LONGEST:
            found.append(mark)
    return found[-MOST:]


def _lines(marks: List[Tuple[float, int]]) -> bytes:
    return b"".join(b"%.1f %d\n" % mark for mark in marks)
