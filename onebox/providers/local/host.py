"""Read the hardware, system and clock of this machine."""

from __future__ import annotations

import os
import platform
import sys
import time
from pathlib import Path

# Images contain paths in the directory of the box that was saved. Increase this number
# when the layout of that directory changes, because older images cannot be used then.
_LAYOUT = 2


def cpus() -> int:
    """Return the number of CPUs that this process may use."""
    if sys.platform.startswith("linux"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory() -> int:
    """Return the machine's memory in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def clock() -> float:
    """
    Return the kernel's time (epoch seconds), read from the time of a new file.

    Programs such as faketime do not change this time. On a system without memfd_create,
    return time.time().
    """
    if not hasattr(os, "memfd_create"):
        return time.time()
    fd = os.memfd_create("clock")
    try:
        return os.fstat(fd).st_mtime
    finally:
        os.close(fd)


def base() -> str:
    """Return a name for the system and Python of this machine; a box uses both."""
    python = "{}.{}.{}".format(*sys.version_info)
    system = f"{platform.system()}-{platform.machine()}".lower()
    return f"local{_LAYOUT}-{system}-{_release()}-python{python}"


def _release() -> str:
    """Return the system's name and version, such as "debian12" or "macos14"."""
    if sys.platform == "darwin":
        return "macos" + platform.mac_ver()[0].partition(".")[0]
    fields = {}
    try:
        lines = Path("/etc/os-release").read_text("utf-8").splitlines()
    except OSError:
        return platform.release()
    for line in lines:
        key, _, value = line.partition("=")
        fields[key] = value.strip('"')
    return fields.get("ID", "linux") + fields.get("VERSION_ID", "")
