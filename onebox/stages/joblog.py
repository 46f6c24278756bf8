"""A job's log as it is kept here: what the job has printed, byte by byte."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType

from ..durable import NO_LINK, not_ours, open_folder, open_in, write_all, write_in

GAPS = "gaps.json"
PIECE = 1 << 20
# Longer than any log: such a gap is made up.
LONGEST = 1 << 50


class JobLog:
    """
    The copy of a log that is still growing.

    Its size says how much of the box's is known here. What was no longer there
    when it was asked for is a hole in it, and named in a file beside it.
    """

    def __init__(self, path: Path, begin: int | None = None) -> None:
        self._path = path
        with ExitStack() as opened:
            # The folder has the job's name, which came from a box.
            self._folder = opened.enter_context(open_folder(path.parent))
            # At its place, not at the end: another terminal that follows the same
            # job writes the same bytes there, and either may end before the other.
            self._file = open_in(self._folder, path, os.O_RDWR | os.O_CREAT)
            opened.callback(os.close, self._file)
            self._opened = opened.pop_all()
        self._at = self._known if begin is None else begin

    def __enter__(self) -> JobLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._opened.close()

    @property
    def size(self) -> int:
        """Return how far the log is known to whoever reads it here."""
        return self._at

    @property
    def _known(self) -> int:
        return os.fstat(self._file).st_size

    def add(self, data: bytes) -> None:
        """Write down what the job has printed next."""
        known = self._known
        if self._at <= known < self._at + len(data):
            os.lseek(self._file, known, os.SEEK_SET)
            write_all(self._file, data[known - self._at :])
        self._at += len(data)

    def skip(self, count: int) -> None:
        """Leave out what is no longer there."""
        begin = self._at
        self._at += count
        if self._known > begin:
            return
        gaps = [gap for gap in _gaps(self._path) if gap[1] <= begin]
        told = json.dumps([*gaps, (begin, begin + count)])
        # Said before it is so: a hole that nobody knows of would be the job's.
        write_in(self._folder, GAPS, told.encode())
        # A byte, and no truncation: another terminal may be further by now.
        os.pwrite(self._file, b"\0", self._at - 1)

    def settle(self) -> None:
        """Have all of it on the disk."""
        os.fsync(self._file)


def replay(
    path: Path, output: Callable[[bytes], None], gone: Callable[[int], None]
) -> int:
    """
    Print a log as far as it is known here, and return how far that is.

    Args:
        gone: Is told in their place how many bytes were no longer there.
    """
    with os.fdopen(_open(path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        for begin, end in [*_gaps(path), (size, size)]:
            while file.tell() < min(begin, size):
                output(file.read(min(PIECE, begin - file.tell())))
            if begin < end <= size:
                gone(end - begin)
                file.seek(end)
    return size


def _gaps(path: Path) -> list[tuple[int, int]]:
    # One that a bad disk has damaged costs the word, not the log.
    with suppress(FileNotFoundError, ValueError, TypeError):
        return [
            (begin, end) for begin, end in json.loads(path.with_name(GAPS).read_bytes())
        ]
    return []


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | NO_LINK)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise not_ours(path, "file") from error
