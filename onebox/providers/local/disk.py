"""Copy and remove whole directories, whatever a job has left in them."""

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

# How often a directory is emptied that another command changes meanwhile.
ATTEMPTS = 20


def remove(path: Path) -> None:
    """
    Remove a file or a directory for good, also what a job has made unreadable.

    Another command may be removing it as well.
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
                # The other command may have moved a folder to where this one has been.
                if not left or error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            else:
                return
    finally:
        os.close(parent)


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
            env=subprocess_env.environment(),
        )
        if done.returncode == 0:
            return
        # The first refusal is of the copy or of the option; a later cp tells.
        problem = done.stderr.strip().splitlines()[-1] if done.stderr else "cp failed"
    raise ProviderError(f"copying to {into} failed: {problem}")


def size(path: Path) -> int:
    """Return how many bytes lie in a directory."""
    found = manifest.walk(os.fsencode(path), b"", unreadable=[])
    total = 0
    for name in found.paths:
        # A Path for each of 100,000 files costs more than the look itself.
        st = os.lstat(os.path.join(os.fsencode(path), name))  # noqa: PTH118 - bytes
        total += 0 if stat.S_ISDIR(st.st_mode) else st.st_size
    return total
