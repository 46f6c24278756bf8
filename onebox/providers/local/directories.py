"""Copy, remove and measure directories, even if a job made them unreadable."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path

from onebox import subprocess_env
from onebox.agent.files import manifest, tree
from onebox.errors import ProviderError

# Maximum number of attempts, in case another command changes the directory meanwhile.
ATTEMPTS = 20


def remove(path: Path) -> None:
    """
    Remove a file or directory, even if a job has made it unreadable.

    Another command may remove it at the same time.
    """
    try:
        parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        for left in reversed(range(ATTEMPTS)):
            try:
                tree.remove(parent, os.fsencode(path.name))
            except OSError as error:
                # Another command may have moved a directory to this path meanwhile.
                if not left or error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            else:
                return
    finally:
        os.close(parent)


def copy(entries: Sequence[Path], into: Path) -> None:
    """
    Copy files and directories with all attributes, sharing blocks if the disk can.

    Hard links are not used: a later write to one copy must not change the other.

    Raises:
        ProviderError: Not everything could be copied.
    """
    if not entries:
        return
    paths = [str(entry) for entry in entries]
    # The options of GNU, of macOS, and of any other cp, tried in this order.
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
        # A failure may concern the option or the copy itself: a later cp shows which.
        problem = done.stderr.strip().splitlines()[-1] if done.stderr else "cp failed"
    raise ProviderError(f"copying to {into} failed: {problem}")


def size(path: Path) -> int:
    """Return the total size in bytes of the files in a directory."""
    walked = manifest.walk(os.fsencode(path), b"", unreadable=[])
    total = 0
    for name in walked.paths:
        # A Path object for each of 100,000 files would take longer than the stat
        # itself.
        st = os.lstat(os.path.join(os.fsencode(path), name))  # noqa: PTH118 - bytes
        total += 0 if stat.S_ISDIR(st.st_mode) else st.st_size
    return total
