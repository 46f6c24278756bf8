"""Two streams for people and programs, of which the reader may go away."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import time
from collections.abc import Iterator
from typing import TextIO

from rich.console import Console


class PipeSafeConsole(Console):
    """A console that falls silent when its reader has gone, and nothing else."""

    def on_broken_pipe(self) -> None:
        """Take in that nobody reads it any more."""
        self.quiet = True
        # What is still in the buffer must not fail at Python's own end.
        hole = os.open(os.devnull, os.O_WRONLY)
        with contextlib.suppress(OSError, ValueError):
            os.dup2(hole, self.file.fileno())
        os.close(hole)

    def plain(self, text: str) -> None:
        """Print a line as it is, without control codes."""
        # rich would make spaces of the tabs between the cells of a table.
        if self.quiet or self.file is None:
            return
        try:
            self.file.write(f"{text}\n")
            self.file.flush()
        except BrokenPipeError:
            self.on_broken_pipe()


def read_together() -> bool:
    """Tell whether stdout and stderr may come to stand in one text."""
    try:
        out, err = os.fstat(1), os.fstat(2)
    except OSError:
        return False
    # What is behind a pipe may be the terminal, or a log of both.
    piped = stat.S_ISFIFO(out.st_mode) or stat.S_ISSOCK(out.st_mode)
    return piped or os.path.samestat(out, err)


def poured(fd: int, data: bytes) -> bool:
    """Write all of it, however long that takes; say no if nobody reads it."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            time.sleep(0.01)
        except OSError:
            return False
    return True


def is_tty(stream: TextIO | None) -> bool:
    """Tell whether a stream is there, and a terminal."""
    return stream is not None and stream.isatty()


@contextlib.contextmanager
def broken_pipes_ignored() -> Iterator[None]:
    """Go on where a terminal or pipe has been closed: the log has it all."""
    try:
        yield
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
