"""Disturb a program before each change that it makes to a filesystem."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# The functions of `os` that change a filesystem.
CALLS = (
    *("chmod", "link", "mkdir", "rename", "replace", "rmdir", "symlink", "unlink"),
    "utime",
)


def crash(work: Callable[[], object], step: int) -> bool:
    """
    Run *work* in a process that is killed before its change number *step*.

    Return whether it was killed, so False if it has fewer changes.
    """
    process = os.fork()
    if process == 0:
        try:
            with before_change(step, lambda: os.kill(os.getpid(), signal.SIGKILL)):
                work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    status = os.waitpid(process, 0)[1]
    if os.WIFSIGNALED(status):
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


@contextlib.contextmanager
def before_change(step: int, work: Callable[[], object]) -> Iterator[None]:
    """Run *work* before the change number *step* that the block makes, if it does."""
    count = 0

    def counting(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*words: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == step + 1:
                work()
            return call(*words, **options)

        return counted

    calls = {name: getattr(os, name) for name in CALLS}
    try:
        for name, call in calls.items():
            setattr(os, name, counting(call))
        yield
    finally:
        for name, call in calls.items():
            setattr(os, name, call)


def names(folder: str | Path) -> list[str]:
    """Return the names in a folder."""
    return sorted(path.name for path in Path(folder).iterdir())
