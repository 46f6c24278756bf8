"""A job's log as it is kept here: what the job has printed, byte by byte."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType

from onebox.agent.jobs import log_limit
from onebox.errors import ProtocolError
from onebox.store.atomic_files import (
    NO_LINK,
    not_ours,
    open_folder,
    open_in,
    write_all,
    write_in,
)

GAPS = "gaps.json"
PIECE = 1 << 20
# Longer than any log, and no longer than a file may be.
LONGEST = 1 << 43
MOST_GAPS = 1000
# By how much a copy may be over its limit where a disk makes no holes.
MARGIN = 1 << 20


class JobLog:
    """
    The copy of a log that is still growing.

    Its size says how much of the box's is known here. What was no longer there
    when it was asked for is a hole in it, and named in a file beside it.

    Args:
        begin: From where on the log is added to; from its end if None.

        limit: As many bytes are kept, as on the box: the beginning and the latest
            part. A box may send more than it keeps itself. 0 is no limit.
    """

    def __init__(self, path: Path, begin: int | None = None, limit: int = 0) -> None:
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
        self._limit = limit
        self._held = self._kept()

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
        known, end = self._known, self._at + len(data)
        if self._at <= known < end:
            if self._limit and self._held > self._limit:
                self._trim()
            # A disk that makes no holes: the rest is shown, but not kept.
            if not self._limit or self._held <= self._limit + MARGIN:
                os.lseek(self._file, known, os.SEEK_SET)
                write_all(self._file, data[known - self._at :])
                self._held += end - known
        self._at = end

    def skip(self, count: int) -> None:
        """Leave out what is no longer there. Raises ProtocolError."""
        before = self._at
        self._at += count
        if self._known <= before:
            self._leave_out()

    def settle(self) -> None:
        """Have all of it on the disk."""
        if self._at > self._known:
            self._leave_out()
        os.fsync(self._file)

    def _leave_out(self) -> None:
        """Make what is missing here up to now a hole."""
        begin = self._known
        # Said before it is so: a hole that nobody knows of would be the job's.
        self._note(begin, begin, self._at)
        # A byte, and no truncation: another terminal may be further by now.
        os.pwrite(self._file, b"\0", self._at - 1)

    def _trim(self) -> None:
        """Free the middle of the copy, if this disk can make a hole in a file."""
        size = self._known
        begin, end = self._limit // 2, size - self._limit * 3 // 8
        if begin < end and log_limit.free(self._file, size + log_limit.BEYOND, 1):
            self._note(size, begin, end)
            log_limit.free(self._file, begin, end - begin)
        self._held = self._kept()

    def _kept(self) -> int:
        size = self._known
        return size - sum(end - begin for begin, end in _gaps(self._path, size))

    def _note(self, size: int, begin: int, end: int) -> None:
        """Add one more to the gaps among the first *size* bytes."""
        gaps: list[tuple[int, int]] = []
        for first, last in sorted([*_gaps(self._path, size), (begin, end)]):
            if gaps and first <= gaps[-1][1]:
                gaps[-1] = (gaps[-1][0], max(last, gaps[-1][1]))
            else:
                gaps.append((first, last))
        if len(gaps) > MOST_GAPS:
            raise ProtocolError(f"the box sends a log of more than {MOST_GAPS} pieces")
        write_in(self._folder, GAPS, json.dumps(gaps).encode())


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
        for begin, end in [*_gaps(path, size), (size, size)]:
            while file.tell() < begin:
                output(file.read(min(PIECE, begin - file.tell())))
            if begin < end:
                gone(end - begin)
                file.seek(end)
    return size


def _gaps(path: Path, size: int) -> list[tuple[int, int]]:
    """Return the gaps in the first *size* bytes of a log."""
    # One that a bad disk has damaged costs the word, not the log.
    with suppress(FileNotFoundError, ValueError, TypeError):
        gaps = json.loads(path.with_name(GAPS).read_bytes())
        # One that was noted but not made ends where the log does.
        return [(begin, min(end, size)) for begin, end in gaps if begin < size]
    return []


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | NO_LINK)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise not_ours(path, "file") from error
