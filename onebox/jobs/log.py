"""The local copy of a job's log."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType

from onebox.agent.jobs import log_limit
from onebox.errors import ProtocolError
from onebox.store.atomic_files import (
    NO_LINK,
    not_ours_error,
    open_folder,
    open_in,
    read_regular,
    write_all,
    write_in,
)

GAPS = "gaps.json"
# The marks of the log: at which time (epoch seconds) it had which length.
MARKS = "times.json"
PIECE = 1 << 20
# A job's log on a box is never longer than this. ext4 with 4 KiB blocks can hold a log
# of this length: its files may have up to 1 << 44 bytes.
LONGEST = 1 << 43
MOST_GAPS = 1000
# How far a copy may exceed its limit on a file system that cannot punch holes.
MARGIN = 1 << 20


class JobLog:
    """
    A local copy of a log that is still growing.

    A byte has the same offset in the copy as in the log. Where the box has dropped
    bytes, the copy has a hole, which is listed in the file `GAPS` beside it.

    Args:
        begin: The offset at which to continue. None means the end of the copy.

        limit: How many bytes of the log the copy keeps; 0 means no limit. As on the
            box, the beginning and the latest part of the log are kept. The copy needs
            its own limit because a box can send more bytes than the box itself keeps.
    """

    def __init__(self, path: Path, begin: int | None = None, limit: int = 0) -> None:
        self._path = path
        with ExitStack() as opened:
            # The folder is named after the job id, which comes from the box, so it
            # must not be a link to another folder.
            self._folder = opened.enter_context(open_folder(path.parent))
            # The file is not opened with O_APPEND. Another terminal that follows the
            # same job writes the same bytes at the same offsets, and either terminal
            # may be ahead of the other.
            self._file = open_in(self._folder, path, os.O_RDWR | os.O_CREAT)
            opened.callback(os.close, self._file)
            self._opened = opened.pop_all()
        self._at = self._file_size if begin is None else begin
        self._limit = limit
        self._stored_bytes = self._count_stored_bytes()

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
        """Return the offset in the log of the next byte that `add` expects."""
        return self._at

    @property
    def _file_size(self) -> int:
        return os.fstat(self._file).st_size

    def add(self, data: bytes) -> None:
        """Append the next part of the log."""
        size, end = self._file_size, self._at + len(data)
        if self._at <= size < end:
            if self._limit and self._stored_bytes > self._limit:
                self._trim()
            # If the file system cannot punch holes, a copy above its limit does not
            # grow: further output is shown but not kept.
            if not self._limit or self._stored_bytes <= self._limit + MARGIN:
                os.lseek(self._file, size, os.SEEK_SET)
                write_all(self._file, data[size - self._at :])
                self._stored_bytes += end - size
        self._at = end

    def skip(self, count: int) -> None:
        """
        Skip *count* bytes that the box has dropped.

        Raises ProtocolError if the log has too many gaps.
        """
        before = self._at
        self._at += count
        if self._file_size <= before:
            self._make_hole()

    def flush(self) -> None:
        """Flush the copy to disk."""
        if self._at > self._file_size:
            self._make_hole()
        os.fsync(self._file)

    def keep_marks(self, marks: Sequence[tuple[float, int]]) -> None:
        """Store the marks of the log, if there are any."""
        if marks:
            write_in(self._folder, MARKS, json.dumps(marks).encode())

    def _make_hole(self) -> None:
        """Extend the file with a hole that ends at the offset `size`."""
        begin = self._file_size
        # The gap is listed before the hole is made, because the zeros of a hole that is
        # not listed would look like output.
        self._add_gap(begin, begin, self._at)
        # One byte is written at the end of the hole. If the file's length was set
        # instead, this could cut off bytes that another terminal, which is ahead, has
        # written.
        os.pwrite(self._file, b"\0", self._at - 1)

    def _trim(self) -> None:
        """Free the middle of the copy, if the file system can punch holes."""
        size = self._file_size
        begin, end = self._limit // 2, size - self._limit * 3 // 8
        if begin < end and log_limit.punch_hole(self._file, size + log_limit.BEYOND, 1):
            self._add_gap(size, begin, end)
            log_limit.punch_hole(self._file, begin, end - begin)
        self._stored_bytes = self._count_stored_bytes()

    def _count_stored_bytes(self) -> int:
        size = self._file_size
        return size - sum(end - begin for begin, end in _gaps(self._path, size))

    def _add_gap(self, size: int, begin: int, end: int) -> None:
        """
        Add the gap from *begin* to *end* to the stored list of gaps.

        Gaps that overlap are merged. *size* is the size of the file. Raises
        ProtocolError if the list becomes too long.
        """
        gaps: list[tuple[int, int]] = []
        for first, last in sorted([*_gaps(self._path, size), (begin, end)]):
            if gaps and first <= gaps[-1][1]:
                gaps[-1] = (gaps[-1][0], max(last, gaps[-1][1]))
            else:
                gaps.append((first, last))
        if len(gaps) > MOST_GAPS:
            raise ProtocolError(f"the box sends a log of more than {MOST_GAPS} pieces")
        write_in(self._folder, GAPS, json.dumps(gaps).encode())


def show_log(
    path: Path,
    output: Callable[[bytes], None],
    gone: Callable[[int], None],
    begin: int = 0,
) -> int:
    """
    Pass the local copy of a log to *output*, and return the size of the copy.

    Args:
        output: Called with each part of the log.

        gone: Called at each gap, with the number of bytes that are missing there.

        begin: The offset of the first byte to pass.
    """
    with os.fdopen(_open(path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(min(begin, size))
        for start, end in [*_gaps(path, size), (size, size)]:
            while file.tell() < start:
                output(file.read(min(PIECE, start - file.tell())))
            if file.tell() < end:
                gone(end - file.tell())
                file.seek(end)
    return size


def tail(path: Path, *, lines: int = 20, most: int = 1 << 14) -> str:
    """
    Return the last lines of the local copy of a log as text.

    If these lines have more than *most* bytes, only the last *most* bytes are read.
    """
    with os.fdopen(_open(path), "rb") as file:
        file.seek(max(os.fstat(file.fileno()).st_size - most, 0))
        text = file.read(most).replace(b"\0", b"").decode("utf-8", "replace")
    return "".join(text.splitlines(keepends=True)[-lines:])


def offset_of_last_lines(path: Path, lines: int) -> int:
    """
    Return the offset at which the last *lines* lines of a local log begin.

    A line without a newline at the end counts. Bytes that the box has dropped count as
    no line.
    """
    with os.fdopen(_open(path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        # The end of the piece that is read next; the pieces are read backwards. The
        # newline that ends the last line begins no line, so the count begins at -1.
        end, found, is_last = size, -1, True
        for gap_begin, gap_end in reversed([(0, 0), *_gaps(path, size)]):
            while end > gap_end:
                begin = max(gap_end, end - PIECE)
                file.seek(begin)
                data = file.read(end - begin)
                if is_last and not data.endswith(b"\n"):
                    found += 1
                at, is_last = len(data), False
                while found < lines and (at := data.rfind(b"\n", 0, at)) >= 0:
                    found += 1
                if found >= lines:
                    return min(begin + at + 1, size)
                end = begin
            end = gap_begin
    return 0


def offset_at(path: Path, moment: float) -> int | None:
    """
    Return the length that a log had at the time *moment* (epoch seconds).

    The result may be a little lower. It is None if no times are recorded for the log.
    """
    with suppress(OSError, ValueError, TypeError, OverflowError, RecursionError):
        marks = json.loads(read_regular(path.with_name(MARKS)))
        offsets = [int(offset) for at, offset in marks if float(at) <= moment]
        return max([0, *offsets])
    return None


def _gaps(path: Path, size: int) -> list[tuple[int, int]]:
    """Return the begin and the end of each gap in the first *size* bytes of a log."""
    # A missing or damaged list is ignored: the log is still readable, but its gaps are
    # read as zeros.
    with suppress(
        FileNotFoundError, ValueError, TypeError, OverflowError, RecursionError
    ):
        gaps = json.loads(read_regular(path.with_name(GAPS)))
        # A gap is listed before its hole is made. After a crash, a listed gap may
        # therefore reach beyond the end of the file. Such a gap is cut at that end or
        # left out.
        return [
            (int(begin), int(min(end, size)))
            for begin, end in gaps
            if 0 <= begin < min(end, size)
        ]
    return []


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | NO_LINK)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise not_ours_error(path, "file") from error
