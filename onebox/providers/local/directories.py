"""
Copy, remove and measure directories, some of which a job may have made unreadable.
"""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path

from onebox import subprocess_env
from onebox.agent.files import folder_writer, manifest
from onebox.errors import ProviderError

# A removal is tried at most this many times, because another command may add entries
# meanwhile.
ATTEMPTS = 20


def remove(path: Path) -> None:
    """
    Remove a file or directory, even if a job has made it unreadable.

    It is no error if the path does not exist, or if another command removes it too.
    """
    try:
        parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        for left in reversed(range(ATTEMPTS)):
            try:
                folder_writer.remove(parent, os.fsencode(path.name))
            except OSError as error:
                # The directory is not empty, because another command may have moved a
                # directory to this path meanwhile. So the removal is tried again.
                if not left or error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            else:
                return
    finally:
        os.close(parent)


def copy(entries: Sequence[Path], into: Path) -> None:
    """
    Copy files and directories with all attributes, sharing disk blocks if possible.

    The copies are not hard links, because a later write to one file must not change the
    other.

    Raises:
        ProviderError: Not everything could be copied.
    """
    if not entries:
        return
    paths = [str(entry) for entry in entries]
    # `cp` is tried with the options of GNU, then with those of macOS, and last with
    # those that every system accepts.
    problem = ""
    for options in (["-a", "--reflink=auto"], ["-Rpc"], ["-Rp"]):
        done = subprocess.run(
            ["cp", *options, "--", *paths, str(into)],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            env=subprocess_env.environment(),
        )
        if done.returncode == 0:
            return
        # Either the options are unknown to this `cp`, or the copy itself failed. The
        # next attempt, with simpler options, shows which.
        problem = done.stderr.strip().splitlines()[-1] if done.stderr else "cp failed"
    raise ProviderError(f"copying to {into} failed: {problem}")


def size(path: Path) -> int:
    """Return the total size in bytes of the files in a directory."""
    walked = manifest.walk(os.fsencode(path), b"", unreadable=[])
    total = 0
    for name in walked.paths:
        # The files' names are not decoded. To create a Path object for each of 100,000
        # files would take longer than the stat calls.
        st = os.lstat(os.path.join(os.fsencode(path), name))  # noqa: PTH118 - the path is bytes
        total += 0 if stat.S_ISDIR(st.st_mode) else st.st_size
    return total
