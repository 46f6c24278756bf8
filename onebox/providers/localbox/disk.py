"""Copy and remove whole directories, whatever a job has left in them."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ... import children
from ...errors import ProviderError


def remove(path: Path) -> None:
    """
    Remove a directory for good, also what a job has made unreadable.

    Another command may be removing it as well.
    """
    for _ in range(2):
        shutil.rmtree(path, ignore_errors=True)
        if not os.path.lexists(path):
            return
        _open_up(path)
    # Once more, and now every error counts but that it is gone.
    while os.path.lexists(path):
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(path)


def copy(entries: Sequence[Path], into: Path) -> None:
    """
    Copy files and directories, as they are, sharing blocks where the disk can.

    Never as hard links: who writes to the one copy in place must not change the
    other.

    Raises:
        ProviderError: They could not all be copied.
    """
    if not entries:
        return
    paths = [str(entry) for entry in entries]
    # GNU's, macOS's and everybody's way to ask for it, in this order.
    problem = ""
    for options in (["-a", "--reflink=auto"], ["-Rpc"], ["-Rp"]):
        done = subprocess.run(
            ["cp", *options, "--", *paths, str(into)],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            env=children.environment(),
        )
        if done.returncode == 0:
            return
        # The first refusal is of the copy or of the option; a later cp tells.
        problem = done.stderr.strip().splitlines()[-1] if done.stderr else "cp failed"
    raise ProviderError(f"copying to {into} failed: {problem}")


def size(path: Path) -> int:
    """Return how many bytes lie in a directory."""
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            # A Path for each of 100,000 files costs more than the look itself.
            total += os.lstat(os.path.join(folder, name)).st_size  # noqa: PTH118
    return total


def _open_up(path: Path) -> None:
    """Let ourselves into every directory below, from the top down."""
    with contextlib.suppress(FileNotFoundError):
        path.chmod(stat.S_IRWXU)
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    _open_up(Path(entry.path))
