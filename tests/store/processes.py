"""Processes and faults that the tests of the store share."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from onebox.errors import Busy
from onebox.store.box_store import BoxStore

ROOT = Path(__file__).parents[2]


def start_python(code: str, *words: object) -> subprocess.Popen[str]:
    """Start Python with this code and *words* as sys.argv[1:]."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def output_of(process: subprocess.Popen[str], text: str = "") -> str:
    """Return what a process prints until its end."""
    out, _ = process.communicate(text, timeout=60)
    return out


def leave_intent_open(store: BoxStore, do: str, **what: Any) -> None:
    """Begin an intent and interrupt its body."""
    with pytest.raises(KeyError), store.intent(do, **what):
        raise KeyError


def names(directory: Path) -> list[str]:
    """Return the names in a directory."""
    return sorted(path.name for path in directory.iterdir())


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Limit the size of files: a write beyond *size* is short or fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def lock_elsewhere(directory: Path) -> None:
    """Lock a box in another process; raise Busy if that fails."""
    code = (
        "import sys; from pathlib import Path; from onebox.store.box_store import "
        "BoxStore\n"
        "from onebox.errors import Busy\n"
        "try: BoxStore(Path(sys.argv[1])).lock('x')\n"
        "except Busy as busy: print(busy.message)"
    )
    message = output_of(start_python(code, directory)).strip()
    if message:
        raise Busy(message)
