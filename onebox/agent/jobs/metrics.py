"""What the box and its job use, measured once a second."""

from __future__ import annotations

import json
import os
import time
from typing import Any, Dict, Optional, Tuple

from .. import box, processes

# One sample a second for half an hour; from then on the pause doubles after
# each 600, so that two weeks are less than 8,000 lines.
FIRST = 1800
THEN = 600
LATEST = "latest"
WIDTH = 512
HISTORY = "samples.jsonl"
# Who is held up between a look at the clock and one at the CPUs takes that for
# work: over less than this it would be many times what there can be.
SHORT = 0.5
VIRTUAL = ("lo", "veth", "docker", "br-", "virbr")


class Sampler:
    """
    Measures on request, and keeps what it saw in a job's directory.

    *peak* is the most memory that the whole box had in use, *job_peak* the most
    that the job's processes had, in bytes; *largest* names the one that had most
    of it.
    """

    def __init__(self, directory: str, work: str, ancestor: int) -> None:
        self.peak = 0
        self.job_peak = 0
        self.largest = ""
        self._directory = directory
        self._work = work
        self._ancestor = ancestor
        self._cpus = box.cpus()
        self._started = box.boottime()
        self._before = (time.monotonic(), _busy())
        self._kept = 0
        self._keep_at = 0.0
        self._count_at = 0.0
        self._job_memory = 0

    def take(self) -> None:
        """Measure now. A full disk costs the sample, nothing else."""
        sample = self._measure()
        line = json.dumps(sample, separators=(",", ":")).encode("ascii") + b"\n"
        try:
            # Of one length, so that it can be overwritten and is never empty.
            _write(os.path.join(self._directory, LATEST), line.rjust(WIDTH), 0)
            if sample["seconds"] >= self._keep_at:
                _write(os.path.join(self._directory, HISTORY), line, os.O_APPEND)
                self._keep_at = sample["seconds"] + pause_after(self._kept) - 0.5
                self._kept += 1
        except OSError:
            return

    def _measure(self) -> Dict[str, Any]:
        now, busy = time.monotonic(), _busy()
        before, was_busy = self._before
        self._before = now, busy
        used, total = box.memory()
        self.peak = max(self.peak, used)
        free, size = box.disk(self._work)
        read, written = _disk_traffic()
        received, sent = _network_traffic()
        return {
            "at": round(time.time(), 2),
            "seconds": round(box.boottime() - self._started, 2),
            "cpu": round((busy - was_busy) / max(now - before, SHORT), 2),
            "cpus": self._cpus,
            "memory": used,
            "memory_total": total,
            "job_memory": self._count_memory(now),
            "disk_free": free,
            "disk_total": size,
            "disk_read": read,
            "disk_written": written,
            "net_in": received,
            "net_out": sent,
        }

    def _count_memory(self, now: float) -> int:
        if now >= self._count_at:
            began = time.process_time()
            mine = processes.below(self._ancestor, processes.running())
            self._job_memory = sum(process.memory for process in mine)
            if self._job_memory > self.job_peak:
                self.job_peak = self._job_memory
                largest = max(mine, key=lambda process: process.memory).pid
                self.largest = processes.name(largest) or self.largest
            # With thousands of processes a look at all of them is not cheap:
            # it may take half a percent of one CPU.
            self._count_at = now + 200 * (time.process_time() - began) - 0.5
        return self._job_memory


def latest(directory: str) -> Optional[Dict[str, Any]]:
    """Return the last sample of a job, None if there is none (just now)."""
    try:
        sample = json.loads(box.read(os.path.join(directory, LATEST)))
    except ValueError:
        return None
    return sample if isinstance(sample, dict) else None


def pause_after(kept: int) -> float:
    """Return the seconds between sample number *kept* and the one after it."""
    return 1.0 if kept < FIRST else 2.0 ** (1 + (kept - FIRST) // THEN)


def oom_kills() -> int:
    """Count how often the kernel has killed for want of memory on this box."""
    lines = box.read("/proc/vmstat").split(b"\n")
    kills = sum(int(line.split()[1]) for line in lines if line[:9] == b"oom_kill ")
    for line in box.read("/proc/self/cgroup").split(b"\n"):
        if line.startswith(b"0::/"):
            events = b"/sys/fs/cgroup" + line[3:] + b"/memory.events"
            for event in box.read(os.fsdecode(events)).split(b"\n"):
                if event.startswith(b"oom_kill "):
                    kills += int(event.split()[1])
    return kills


def _busy() -> float:
    """Return the seconds that all CPUs together have been working since boot."""
    fields = box.read("/proc/stat").split(b"\n")[0].split()
    if len(fields) < 8:
        return 0.0
    user, nice, system, _idle, _iowait, irq, softirq = map(int, fields[1:8])
    ticks = user + nice + system + irq + softirq
    return ticks / float(os.sysconf("SC_CLK_TCK"))


def _disk_traffic() -> Tuple[int, int]:
    read = written = 0
    for line in box.read("/proc/diskstats").split(b"\n"):
        fields = line.split()
        # Real disks only: partitions, loops and mappings count the same bytes.
        if len(fields) > 9 and os.path.exists(
            "/sys/block/%s/device" % os.fsdecode(fields[2])
        ):
            read += int(fields[5]) * 512
            written += int(fields[9]) * 512
    return read, written


def _network_traffic() -> Tuple[int, int]:
    received = sent = 0
    for line in box.read("/proc/net/dev").split(b"\n")[2:]:
        name, _, rest = line.partition(b":")
        fields = rest.split()
        if len(fields) > 8 and not os.fsdecode(name.strip()).startswith(VIRTUAL):
            received += int(fields[0])
            sent += int(fields[8])
    return received, sent


def _write(path: str, data: bytes, how: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | how
    fd = os.open(path, flags, 0o600)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)
