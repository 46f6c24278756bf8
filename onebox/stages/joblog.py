"""A job's log as it is kept here: what the job has printed, byte by byte."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from ..durable import private_dir, write_all, write_atomically
from ..errors import Lost

PIECE = 1 << 20
# Longer than any log: such a gap is made up.
LONGEST = 1 << 50


class JobLog:
    """
    The copy of a log that is still growing.

    Its size says how much of the box's is known here. What was no longer there
    when it was asked for is a hole in it, and named in a file beside it.
    """

    def __init__(self, path: Path) -> None:
        private_dir(path.parent)
        self._path = path
        self._file = path.open("ab", buffering=0)

    def __enter__(self) -> JobLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    @property
    def size(self) -> int:
        """Return how far the log is known."""
        return os.fstat(self._file.fileno()).st_size

    def add(self, data: bytes) -> None:
        """Write down what the job has printed next."""
        write_all(self._file.fileno(), data)

    def skip(self, count: object) -> int:
        """Leave out what is no longer there. Raises Lost if that cannot be."""
        if not isinstance(count, int) or not 0 < count < LONGEST:
            raise Lost(f"the box says that {count!r} bytes of the log are gone")
        begin = self.size
        gaps = [gap for gap in _gaps(self._path) if gap[1] <= begin]
        told = json.dumps([*gaps, (begin, begin + count)])
        # Said before it is so: a hole that nobody knows of would be the job's.
        write_atomically(_beside(self._path), told.encode())
        os.truncate(self._file.fileno(), begin + count)
        return count

    def settle(self) -> None:
        """Have all of it on the disk."""
        os.fsync(self._file.fileno())


def replay(
    path: Path, output: Callable[[bytes], None], gone: Callable[[int], None]
) -> None:
    """
    Print a log as far as it is known here.

    Args:
        gone: Is told in their place how many bytes were no longer there.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        for begin, end in [*_gaps(path), (size, size)]:
            while file.tell() < min(begin, size):
                output(file.read(min(PIECE, begin - file.tell())))
            if begin < end <= size:
                gone(end - begin)
                file.seek(end)


def _gaps(path: Path) -> list[tuple[int, int]]:
    # One that a bad disk has damaged costs the word, not the log.
    with suppress(FileNotFoundError, ValueError, TypeError):
        return [(begin, end) for begin, end in json.loads(_beside(path).read_bytes())]
    return []


def _beside(path: Path) -> Path:
    return path.with_name("gaps.json")
