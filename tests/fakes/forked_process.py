"""A process that is forked from another one, and takes the place of a new one."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn


def become(
    command: Sequence[str], argv: Sequence[str], environ: Mapping[str, str]
) -> None:
    """Take over a command line and an environment, and show them in /proc."""
    os.environ.clear()
    os.environ.update(environ)
    sys.argv = list(argv)
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    # proc_pid_stat(5): arg_start, arg_end, env_start, env_end are the fields 48 to 51.
    places = [int(field) for field in fields[45:49]]
    _overwrite(places[0], places[1], command)
    _overwrite(places[2], places[3], [f"{k}={v}" for k, v in environ.items()])


def _overwrite(start: int, end: int, texts: Iterable[str]) -> None:
    data = b"".join(os.fsencode(text) + b"\0" for text in texts)[: end - start - 1]
    ctypes.memset(start, 0, end - start)
    ctypes.memmove(start, data, len(data))


def close_all_but(kept: set[int]) -> None:
    """Close all files but these."""
    for number in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
        if number not in kept:
            with contextlib.suppress(OSError):
                os.close(number)


def end(code: int) -> NoReturn:
    """
    End this process as Python does, but leave its objects to the kernel.

    To delete them one by one would first copy the memory of all that was imported
    before the fork, and would take most of the time of a line.
    """
    # The same steps in the same order as in Py_FinalizeEx.
    threading._shutdown()  # type: ignore[attr-defined] # not in typeshed
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        raise SystemExit(code) from None
    os._exit(code)
