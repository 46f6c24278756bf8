"""
Record the project folders in which the user has run the program `onebox`.

The program completes a line with the tasks of tasks.py only in these folders. In a
folder that was just cloned, a key would otherwise run a program that the user has never
run.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from onebox.errors import OneboxError
from onebox.store.atomic_files import private_dir, write_atomically
from onebox.store.paths import state_dir


def note_use(folder: Path, environ: Mapping[str, str]) -> None:
    """Record that the user has run a command in *folder*; an error is ignored."""
    with contextlib.suppress(OneboxError, OSError):
        mark = _mark(folder, environ)
        if not mark.exists():
            private_dir(mark.parent)
            write_atomically(mark, os.fsencode(folder))


def was_used(folder: Path, environ: Mapping[str, str]) -> bool:
    """Return whether the user has run a command in *folder*."""
    with contextlib.suppress(OneboxError, OSError):
        return _mark(folder, environ).exists()
    return False


def _mark(folder: Path, environ: Mapping[str, str]) -> Path:
    """
    Return the file that records a folder.

    Its name depends on the folder's inode too, so that another folder at the same path
    does not count as used.
    """
    real = folder.resolve()
    text = b"%d\0%b" % (real.stat().st_ino, os.fsencode(real))
    name = hashlib.sha256(text).hexdigest()[:32]
    return state_dir(environ) / "used-folders" / name
