"""The box's configuration, its hardware, and small helpers for its files."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import sys
import time
from typing import Any, Dict, List, NamedTuple, Tuple

from .protocol import Refused


class BoxConfig(NamedTuple):
    """
    The configuration of the box, which its startup script writes to `box.json`.

    *root* is the agent's own directory. *work* is the directory that holds code and
    data, and in which jobs run. *armed* is when the box booted and *deadline* when it
    must be off, both in seconds since the epoch. The other times are durations in
    seconds. If the box is still up *poweroff_wait* after *poweroff* was run,
    *poweroff_force* is run. *boot_id* changes with every boot. *sudo* are the words
    that come before a command that needs root. *notice* selects the metadata service
    that announces a preemption: "ec2", "gce", or "" if the cloud has no such service.
    *host_key* is the file of the ssh host key that came with the user data, or "" if
    the box generated its host keys itself. *scheduler* is set if the box is only a
    folder, and a cluster runs its jobs: how the cluster is reached, and the resources
    of a job. See `slurm` and `ray`.
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
    sudo: List[str] = []  # noqa: RUF012 - never modified
    notice: str = ""
    host_key: str = ""
    scheduler: Dict[str, Any] = {}  # noqa: RUF012 - never modified

    @classmethod
    def load(cls, root: str) -> BoxConfig:
        """Read `box.json` in *root*. Raises `Refused` if it is missing or invalid."""
        path = os.path.join(root, "box.json")
        try:
            with open(path, "rb") as file:
                config = json.loads(file.read())
            return cls(
                root=root,
                id=str(config["box"]),
                work=str(config["work"]),
                home=str(config["home"]),
                armed=float(config["armed"]),
                deadline=float(config["deadline"]),
                setup_grace=float(config["setup_grace"]),
                idle_grace=float(config["idle_grace"]),
                poweroff=_words(config["poweroff"]),
                poweroff_force=_words(config.get("poweroff_force", [])),
                poweroff_wait=float(config.get("poweroff_wait", 120.0)),
                boot_id=str(config.get("boot_id") or _boot_id()),
                sudo=_words(config.get("sudo", [])),
                notice=str(config.get("notice", "")),
                host_key=str(config.get("host_key", "")),
                scheduler=dict(config.get("scheduler", {})),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Refused("box", "%s cannot be used: %r" % (path, error)) from error

    @property
    def engine(self) -> str:
        """What runs the jobs: "slurm" or "ray"; "" if they run on this machine."""
        return str(self.scheduler.get("engine", "slurm")) if self.scheduler else ""

    def path(self, *names: str) -> str:
        """Return a path in the agent's own directory."""
        return os.path.join(self.root, *names)

    def as_root(self, argv: List[str]) -> List[str]:
        """Return the command that runs the command *argv* as root."""
        return argv if os.geteuid() == 0 else [*self.sudo, *argv]


def facts(box: BoxConfig) -> Dict[str, Any]:
    """Return facts for the answer to `hello`: versions, clocks and hardware."""
    free, total = disk_space(box.work)
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
    """Return a short hash of the file that this agent was started from."""
    # hashlib is imported here, because it loads OpenSSL and only `serve` needs it.
    import hashlib

    return hashlib.sha256(read(os.path.abspath(sys.argv[0]))).hexdigest()[:12]


def boottime() -> float:
    """Return the seconds since boot, including suspend, unaffected by clock changes."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


def cpus() -> int:
    """Return the number of CPUs that a job may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory() -> Tuple[int, int]:
    """
    Return the bytes of memory that are in use, and the bytes of all memory.

    A number that is unknown is 0.
    """
    lines = read("/proc/meminfo").split(b"\n")
    sizes = {line.split()[0]: int(line.split()[1]) * 1024 for line in lines if line}
    if b"MemTotal:" in sizes:
        total = sizes[b"MemTotal:"]
        return total - sizes.get(b"MemAvailable:", 0), total
    try:
        return 0, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return 0, 0


def disk_space(path: str) -> Tuple[int, int]:
    """Return the free and the total bytes of the file system that holds *path*."""
    try:
        stat = os.statvfs(path)
    except OSError:
        return 0, 0
    return stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize


def touch(path: str) -> None:
    """Set a file's times to now, and create the file if needed. Ignores errors."""
    try:
        os.utime(path)
    except OSError:
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
        except OSError:
            return


def read(path: str) -> bytes:
    """Return the content of a small file, b"" if it cannot be read."""
    # Each search of /proc reads hundreds of files, and `open` takes twice as long.
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        parts: List[bytes] = []
        while True:
            part = os.read(fd, 1 << 16)
            if not part:
                return b"".join(parts)
            parts.append(part)
    except OSError:
        return b""
    finally:
        os.close(fd)


def replace_file(path: str, data: bytes, mode: int = 0o600, *, sync: bool) -> None:
    """
    Replace a small file, so that a reader finds the complete old or new file.

    Args:
        sync: Return only when the contents are on the disk.

    Raises:
        OSError: The new file could not be written, for example because the disk is
            full. The old file is unchanged.
    """
    fresh = "%s.%d" % (path, os.getpid())
    try:
        with open(fresh, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(fresh, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(fresh)
        raise


def sync_folder(path: str) -> None:
    """Flush a folder's list of names to the disk, but not the contents of its files."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def is_locked(path: str) -> bool:
    """Return whether a process holds an exclusive lock on a file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        # The check takes a shared lock, so that two checks at the same time do not
        # count each other as the holder of the exclusive lock.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _boot_id() -> str:
    # This is the machine's boot id. A local box boots while the machine stays on, so
    # its box.json contains another id, which is used instead.
    return read("/proc/sys/kernel/random/boot_id").decode("ascii").strip()


def _words(value: Any) -> List[str]:
    return [str(word) for word in value]
