"""What this machine is, and whether boxes can live on it."""

from __future__ import annotations

import os
import platform
import pwd
import shutil
import sys
import time
from importlib import metadata
from pathlib import Path

from onebox.providers.base import Check

from . import protection

# Images hold paths of the box that they were saved from: another layout of a box's
# directory is another base.
_LAYOUT = 2
# Less than this, and a virtual environment does not fit.
_LITTLE_DISK = 2 << 30


def cpus() -> int:
    """Return how many processors this process may use."""
    if sys.platform.startswith("linux"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory() -> int:
    """Return the machine's memory in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def clock() -> float:
    """Return the time (epoch seconds) as the kernel writes it on a new file."""
    if not hasattr(os, "memfd_create"):
        return time.time()
    fd = os.memfd_create("clock")
    try:
        return os.fstat(fd).st_mtime
    finally:
        os.close(fd)


def base() -> str:
    """Name the system and the Python that a box finds."""
    python = "{}.{}.{}".format(*sys.version_info)
    system = f"{platform.system()}-{platform.machine()}".lower()
    return f"local{_LAYOUT}-{system}-{_release()}-python{python}"


def checks(root: Path) -> list[Check]:
    """Return a line each on what a box needs, and on what protects from it."""
    confined = protection.here()
    return [
        Check("boxes", True, f"in {root}"),
        Check("confinement", confined.complete or None, confined.describe()),
        _orphans(),
        _account(),
        _space(root),
        _server(),
    ]


def _orphans() -> Check:
    if sys.platform.startswith("linux"):
        return Check("processes", True, "all of a box's are found, also daemons")
    return Check(
        "processes", None, "a daemon that clears its environment outlives its box"
    )


def _account() -> Check:
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return Check(
            "account",
            False,
            f"user id {os.getuid()} has no entry in /etc/passwd: ssh refuses to run",
            "add one, or run as a user that has one",
        )
    return Check("account", True, name)


def _space(root: Path) -> Check:
    standing = root
    while not standing.exists():
        standing = standing.parent
    free = shutil.disk_usage(standing).free
    detail = f"{free / 1e9:.1f} GB free for boxes"
    return Check("disk", None if free < _LITTLE_DISK else True, detail)


def _server() -> Check:
    try:
        return Check("ssh server", True, f"asyncssh {metadata.version('asyncssh')}")
    except metadata.PackageNotFoundError:
        return Check(
            "ssh server", False, "asyncssh is not installed", "pip install asyncssh"
        )


def _release() -> str:
    """Return the system's version, as in "debian12" or "macos14"."""
    if sys.platform == "darwin":
        return "macos" + platform.mac_ver()[0].partition(".")[0]
    named = {}
    try:
        lines = Path("/etc/os-release").read_text("utf-8").splitlines()
    except OSError:
        return platform.release()
    for line in lines:
        key, _, value = line.partition("=")
        named[key] = value.strip('"')
    return named.get("ID", "linux") + named.get("VERSION_ID", "")
