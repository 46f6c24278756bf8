"""Print help and completions without rich, whose import takes time."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable


def note(line: str) -> None:
    """Print a note to stderr."""
    with contextlib.suppress(OSError, AttributeError):
        sys.stderr.write(f"{line}\n")


def print_lines(lines: Iterable[str]) -> None:
    """Print lines of requested output to stdout; a closed pipe is not an error."""
    if sys.stdout is None:
        return
    try:
        for line in lines:
            print(line)
        sys.stdout.flush()
    except BrokenPipeError:
        discard_stdout()


def discard_stdout() -> None:
    """Discard what stdout still holds; Python would write it again when it exits."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
