"""Write files so that a crash at any instant leaves the old or the new, never half."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from pathlib import Path

from .signals import held

OLD_SECONDS = 3600.0


def private_dir(path: Path) -> Path:
    """Make a directory that only this user can enter, and its parents."""
    if not path.is_dir():
        private_dir(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
    return path


def write_atomically(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace a file so that after a crash it is either the old or the new."""
    with held():
        fd, draft = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        try:
            try:
                os.fchmod(fd, mode)
                write_all(fd, data)
                os.fsync(fd)
            finally:
                os.close(fd)
            Path(draft).replace(path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                Path(draft).unlink()
            raise
        sync_dir(path.parent)


def clear_drafts(directory: Path, pattern: str) -> None:
    """
    Remove what commands that were killed an hour ago, or earlier, left half done.

    What is younger may be the work of one that still runs.
    """
    for path in directory.glob(pattern):
        with contextlib.suppress(OSError):
            if path.lstat().st_mtime > time.time() - OLD_SECONDS:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def write_all(fd: int, data: bytes) -> None:
    """Write every byte, however few the system takes at a time."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def sync_dir(path: Path) -> None:
    """Bring a directory's own entries to the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
