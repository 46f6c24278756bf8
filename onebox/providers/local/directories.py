"""
Copy, remove and measure directories, some of which a job may have made unreadable.
"""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from onebox import subprocess_env
from onebox.agent.files import folder_writer, manifest
from onebox.errors import ProviderError

# A removal is tried at most this many times, because another command may add entries
# meanwhile.
ATTEMPTS = 20
# The seconds between two reports of how much is copied.
_REPORT_SECONDS = 0.2


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


def copy(
    entries: Sequence[Path],
    into: Path,
    copied: Callable[[int], None] = lambda done: None,
) -> None:
    """
    Copy files and directories with all attributes, sharing disk blocks if possible.

    The copies are not hard links, because a later write to one file must not change the
    other.

    Args:
        copied: Is called now and then with the number of bytes that are copied, if the
            system counts them.

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
        code, stderr = _run(["cp", *options, "--", *paths, str(into)], copied)
        if code == 0:
            return
        # Either the options are unknown to this `cp`, or the copy itself failed. The
        # next attempt, with simpler options, shows which.
        problem = stderr.strip().splitlines()[-1] if stderr else "cp failed"
    raise ProviderError(f"copying to {into} failed: {problem}")


def _run(argv: Sequence[str], copied: Callable[[int], None]) -> tuple[int, str]:
    """Run `cp`, and report how much it has copied; return its exit code and stderr."""
    with subprocess.Popen(
        argv,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=subprocess_env.environment(),
    ) as process:
        try:
            while True:
                with suppress(subprocess.TimeoutExpired):
                    _, stderr = process.communicate(timeout=_REPORT_SECONDS)
                    return process.returncode, stderr
                done = _written(process.pid)
                if done is not None:
                    copied(done)
        except BaseException:
            process.kill()
            raise


def _written(process: int) -> int | None:
    """
    Return how many bytes a process has written to files, None if that is unknown.

    Only Linux counts them. To measure the copies instead would take a walk over all of
    them for each report.
    """
    with suppress(OSError, ValueError):
        for line in Path(f"/proc/{process}/io").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "wchar":
                return int(value)
    return None


def size(path: Path) -> int:
    """Return the total size in bytes of a file, or of the files in a directory."""
    if not path.is_dir() or path.is_symlink():
        return path.lstat().st_size
    walked = manifest.walk(os.fsencode(path), b"", unreadable=[])
    total = 0
    for name in walked.paths:
        # The files' names are not decoded. To create a Path object for each of 100,000
        # files would take longer than the stat calls.
        st = os.lstat(os.path.join(os.fsencode(path), name))  # noqa: PTH118 - the path is bytes
        total += 0 if stat.S_ISDIR(st.st_mode) else st.st_size
    return total
