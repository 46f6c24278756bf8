"""What the agent knows about the box it lives on."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import sys
import time
from typing import Any, Dict, List, NamedTuple, Tuple

from .protocol import Refused


class Box(NamedTuple):
    """
    The box as its startup script has described it in `box.json`.

    Times are in seconds, *armed* and *deadline* since the epoch. *root* is the
    agent's own directory, *work* the one where code and data are and jobs run.
    *poweroff_force* is run when the box still lives *poweroff_wait* later.
    *boot_id* is another one after each boot. *sudo* goes before what only root
    may do. *notice* is whose metadata service tells that the cloud takes the box
    back ("ec2", "gce", or "" for nobody's), *host_key* the file of the ssh host
    key that we gave the box, "" if it has made its own.
    """

    root: str
    id: str
    work: str
    home: str
    armed: float
    deadline: float
    setup_grace: float
    idle_grace: float
    poweroff: List[str]
    poweroff_force: List[str]
    poweroff_wait: float
    boot_id: str
    sudo: List[str] = []  # noqa: RUF012 - nobody adds to it
    notice: str = ""
    host_key: str = ""

    def path(self, *names: str) -> str:
        """Return the path of something in the agent's directory."""
        return os.path.join(self.root, *names)

    def as_root(self, argv: List[str]) -> List[str]:
        """Return the command that does this as root, whoever we are."""
        return argv if os.geteuid() == 0 else [*self.sudo, *argv]


def load(root: str) -> Box:
    """Read the box's description. Raises `Refused` if there is none to read."""
    path = os.path.join(root, "box.json")
    try:
        with open(path, "rb") as file:
            told = json.loads(file.read())
        return Box(
            root=root,
            id=str(told["box"]),
            work=str(told["work"]),
            home=str(told["home"]),
            armed=float(told["armed"]),
            deadline=float(told["deadline"]),
            setup_grace=float(told["setup_grace"]),
            idle_grace=float(told["idle_grace"]),
            poweroff=[str(word) for word in told["poweroff"]],
            poweroff_force=[str(word) for word in told.get("poweroff_force", [])],
            poweroff_wait=float(told.get("poweroff_wait", 120.0)),
            boot_id=str(told.get("boot_id") or _boot_id()),
            sudo=[str(word) for word in told.get("sudo", [])],
            notice=str(told.get("notice", "")),
            host_key=str(told.get("host_key", "")),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Refused("box", "%s cannot be used: %r" % (path, error)) from error


def facts(box: Box) -> Dict[str, Any]:
    """Return what a client wants to know when it first meets the box."""
    free, total = disk(box.work)
    return {
        "agent": version(),
        "box": box.id,
        "boot_id": box.boot_id,
        "uptime": boottime(),
        "now": time.time(),
        "armed": box.armed,
        "deadline": box.deadline,
        "cpus": cpus(),
        "memory": memory()[1],
        "disk_free": free,
        "disk_total": total,
        "python": "%d.%d.%d" % tuple(sys.version_info[:3]),
        "arch": os.uname().machine,
        "home": box.home,
        "work": box.work,
    }


@functools.lru_cache(maxsize=None)
def version() -> str:
    """Return the short hash of the file that this agent was started from."""
    return hashlib.sha256(read(os.path.abspath(sys.argv[0]))).hexdigest()[:12]


def boottime() -> float:
    """Return the seconds since boot, sleep included; no clock change moves it."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


def cpus() -> int:
    """Count the CPUs that a job here may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory() -> Tuple[int, int]:
    """Return the bytes of memory in use and in all; (0, 0) if nobody tells."""
    lines = read("/proc/meminfo").split(b"\n")
    sizes = {line.split()[0]: int(line.split()[1]) * 1024 for line in lines if line}
    if b"MemTotal:" in sizes:
        total = sizes[b"MemTotal:"]
        return total - sizes.get(b"MemAvailable:", 0), total
    try:
        return 0, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return 0, 0


def disk(path: str) -> Tuple[int, int]:
    """Return the free bytes and all bytes of the disk that *path* is on."""
    try:
        stat = os.statvfs(path)
    except OSError:
        return 0, 0
    return stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize


def _boot_id() -> str:
    # A box that is a directory of a machine boots without the machine: it has
    # its own in box.json.
    return read("/proc/sys/kernel/random/boot_id").decode("ascii").strip()


def touch(path: str) -> None:
    """Set a file's time to now; make it if need be. A full disk is no reason."""
    try:
        os.utime(path)
    except OSError:
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
        except OSError:
            return


def read(path: str) -> bytes:
    """Return what a small file holds, nothing if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""
