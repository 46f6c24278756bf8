"""Print and write without failing when the reader closes the pipe."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import sys
import time
from collections.abc import Iterator, Mapping
from typing import TextIO

from rich.console import Console

CLOSED = "it is closed"


class PipeSafeConsole(Console):
    """
    A console that stops printing when a write fails.

    Attributes:
        problem: Why the write failed; "" if the reader has closed the pipe. It is
            `CLOSED` if stdout was closed from the start (`>&-`).
    """

    problem = ""

    def on_broken_pipe(self) -> None:
        """Stop printing; discard what is still buffered."""
        self.quiet = True
        # Python flushes the buffer when it exits, which would raise again if the
        # descriptor still led to the closed pipe.
        devnull = os.open(os.devnull, os.O_WRONLY)
        # A stream that Python code has put in the place of another may lack `fileno`.
        with contextlib.suppress(AttributeError, OSError, ValueError):
            os.dup2(devnull, self.file.fileno())
        os.close(devnull)

    def plain(self, text: str) -> None:
        """Print a line without control codes."""
        # The line is not printed by rich, which would replace the tabs between the
        # cells of a table by spaces.
        if self.quiet:
            return
        if (sys.stderr if self.stderr else sys.stdout) is None:
            self.problem = CLOSED
            return
        try:
            self.file.write(f"{text}\n")
            self.file.flush()
        except OSError as error:
            self.problem = describe(error)
            self.on_broken_pipe()


def consoles(environ: Mapping[str, str]) -> tuple[PipeSafeConsole, PipeSafeConsole]:
    """Return the consoles of stdout and stderr of this process."""
    for stream in (sys.stdout, sys.stderr):
        # Printing a file name that the encoding cannot represent must not raise.
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
    capable = environ.get("TERM") not in ("dumb", "unknown")
    out, err = capable and is_tty(sys.stdout), capable and is_tty(sys.stderr)
    # force_terminal is set, because otherwise the variable FORCE_COLOR would make rich
    # write control codes into a pipe.
    return (
        PipeSafeConsole(highlight=False, force_terminal=out),
        PipeSafeConsole(stderr=True, highlight=False, force_terminal=err),
    )


def read_together() -> bool:
    """Return whether the same reader may see stdout and stderr mixed in one text."""
    try:
        out, err = os.fstat(1), os.fstat(2)
    except OSError:
        return False
    # The program that reads stdout from a pipe may write it to the terminal, or to a
    # log that also gets stderr.
    piped = stat.S_ISFIFO(out.st_mode) or stat.S_ISSOCK(out.st_mode)
    return piped or os.path.samestat(out, err)


def describe(error: OSError) -> str:
    """Return why a write failed, "" if the reader has closed the pipe."""
    return "" if isinstance(error, BrokenPipeError) else error.strerror or str(error)


def write_fully(fd: int, data: bytes) -> None:
    """Write all bytes, waiting as needed. Raises OSError."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            time.sleep(0.01)


def is_tty(stream: TextIO | None) -> bool:
    """Return whether a stream exists and is a terminal."""
    # A stream that Python code has put in the place of another may lack `isatty`.
    ask = getattr(stream, "isatty", None)
    return ask is not None and bool(ask())


@contextlib.contextmanager
def broken_pipes_ignored() -> Iterator[None]:
    """
    Ignore that the terminal or pipe for the output is closed.

    The job's log file still has all output of the job.
    """
    try:
        yield
    except OSError:
        with contextlib.suppress(AttributeError, OSError, ValueError):
            sys.stderr.flush()
