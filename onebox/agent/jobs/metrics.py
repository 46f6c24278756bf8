"""Measure and store what resources the box and its job use."""

from __future__ import annotations

import json
import os
import time
from typing import NamedTuple, Optional, Tuple

from .. import processes
from ..box import boottime, cpus, disk_space, memory, read

# For the first half hour, the history gets one sample a second. After that the pause
# between samples doubles after every 600 samples, so that the history of two weeks has
# less than 8,000 lines.
SAMPLES_EACH_SECOND = 1800
SAMPLES_PER_PAUSE = 600
LATEST = "latest"
WIDTH = 512
HISTORY = "samples.jsonl"
# The CPU load is computed as if at least this many seconds had passed. Over a shorter
# interval, a delay between reading the clock and reading the CPU times would show a
# multiple of the real load.
SHORTEST = 0.5
VIRTUAL = ("lo", "veth", "docker", "br-", "virbr")


class MetricSample(NamedTuple):
    """
    The resources in use at one moment, as the box measures and stores them.

    *at* is in seconds since the epoch, *seconds* since the job's start. Of the box's
    *cpus*, *cpu* are busy, and the job keeps *job_cpu* of them busy; it is None in the
    samples of an older agent. All other values are bytes: *disk_read*, *disk_written*,
    *net_in* and *net_out* since boot, the others at this moment.
    """

    at: float
    seconds: float
    cpu: float
    cpus: int
    memory: int
    memory_total: int
    job_memory: int
    disk_free: int
    disk_total: int
    disk_read: int
    disk_written: int
    net_in: int
    net_out: int
    job_cpu: Optional[float] = None


class Sampler:
    """
    Measures on request, and stores the samples in a job's directory.

    *peak* is the highest memory use of the whole box in bytes, *job_peak* that of the
    job's processes. *largest* is the name of the process that used the most memory when
    the job's memory use was highest.
    """

    def __init__(self, directory: str, work: str, ancestor: int) -> None:
        self.peak = 0
        self.job_peak = 0
        self.largest = ""
        self._directory = directory
        self._work = work
        self._ancestor = ancestor
        self._cpus = cpus()
        self._started = boottime()
        self._before = (time.monotonic(), busy_seconds())
        self._stored = 0
        self._store_at = 0.0
        self._list_at = 0.0
        self._job_memory = 0
        self._job_cpu = 0.0
        self._job_before = (time.monotonic(), 0.0)

    def take(self) -> None:
        """Measure now and store the sample, unless the disk is full."""
        sample = self._measure()
        line = _line(sample)
        try:
            store_latest(self._directory, sample)
            if sample.seconds >= self._store_at:
                _write(os.path.join(self._directory, HISTORY), line, os.O_APPEND)
                self._store_at = sample.seconds + pause_after(self._stored) - 0.5
                self._stored += 1
        except OSError:
            return

    def _measure(self) -> MetricSample:
        now, busy = time.monotonic(), busy_seconds()
        before, was_busy = self._before
        self._before = now, busy
        used, total = memory()
        self.peak = max(self.peak, used)
        free, size = disk_space(self._work)
        self._measure_job(now)
        disk_read, disk_written = _disk_traffic()
        received, sent = _network_traffic()
        return MetricSample(
            at=round(time.time(), 2),
            seconds=round(boottime() - self._started, 2),
            cpu=round((busy - was_busy) / max(now - before, SHORTEST), 2),
            cpus=self._cpus,
            memory=used,
            memory_total=total,
            job_memory=self._job_memory,
            disk_free=free,
            disk_total=size,
            disk_read=disk_read,
            disk_written=disk_written,
            net_in=received,
            net_out=sent,
            job_cpu=self._job_cpu,
        )

    def _measure_job(self, now: float) -> None:
        """Measure the memory and the CPU load of the job's processes."""
        if now >= self._list_at:
            began = time.process_time()
            everything = processes.all_processes()
            job = processes.descendants(self._ancestor, everything)
            before, was_used = self._job_before
            used = max(processes.cpu_seconds(self._ancestor, everything), was_used)
            self._job_before = now, used
            self._job_cpu = round((used - was_used) / max(now - before, SHORTEST), 2)
            self._job_memory = sum(process.memory for process in job)
            if self._job_memory > self.job_peak:
                self.job_peak = self._job_memory
                largest = max(job, key=lambda process: process.memory).pid
                self.largest = processes.name(largest) or self.largest
            # Listing thousands of processes is not cheap. The pause before the next
            # listing limits the cost to half a percent of one CPU.
            self._list_at = now + 200 * (time.process_time() - began) - 0.5


def latest(directory: str) -> Optional[MetricSample]:
    """Return the last sample of a job, None if it is missing or incomplete."""
    try:
        return MetricSample(**json.loads(read(os.path.join(directory, LATEST))))
    except (ValueError, TypeError):
        return None


def store_latest(directory: str, sample: MetricSample) -> None:
    """
    Make a sample the latest one in a job's directory. Raises OSError.

    The line has a fixed width, so that it can be overwritten in place and the file is
    never empty.
    """
    _write(os.path.join(directory, LATEST), _line(sample).rjust(WIDTH), 0)


def _line(sample: MetricSample) -> bytes:
    return json.dumps(sample._asdict(), separators=(",", ":")).encode("ascii") + b"\n"


def pause_after(stored: int) -> float:
    """
    Return how many seconds pass before the history gets its next sample.

    *stored* is the number of samples that the history already has.
    """
    return (
        1.0
        if stored < SAMPLES_EACH_SECOND
        else 2.0 ** (1 + (stored - SAMPLES_EACH_SECOND) // SAMPLES_PER_PAUSE)
    )


def oom_kills() -> Tuple[int, int]:
    """
    Return how many processes the kernel has killed for lack of memory.

    Return two counts: those of this process's cgroup, and those of the machine.
    """
    lines = read("/proc/vmstat").split(b"\n")
    machine = sum(int(line.split()[1]) for line in lines if line[:9] == b"oom_kill ")
    own = 0
    for line in read("/proc/self/cgroup").split(b"\n"):
        if line.startswith(b"0::/"):
            events = b"/sys/fs/cgroup" + line[3:] + b"/memory.events"
            for event in read(os.fsdecode(events)).split(b"\n"):
                if event.startswith(b"oom_kill "):
                    own += int(event.split()[1])
    return own, machine


def killed_for_memory(before: Tuple[int, int], code: int) -> bool:
    """
    Return whether the kernel has killed the job, or a part of it, for lack of memory.

    *before* is what `oom_kills` returned when the job started. The count of the whole
    machine includes other programs. It is used only if the job's main process was
    killed, which the exit code *code* = 137 shows.
    """
    own, machine = oom_kills()
    return own > before[0] or (code == 137 and machine > before[1])


def busy_seconds() -> float:
    """Return the time in seconds that all CPUs together have been busy since boot."""
    fields = read("/proc/stat").split(b"\n")[0].split()
    if len(fields) < 8:
        return 0.0
    user, nice, system, _idle, _iowait, irq, softirq = map(int, fields[1:8])
    ticks = user + nice + system + irq + softirq
    return ticks / float(os.sysconf("SC_CLK_TCK"))


def _disk_traffic() -> Tuple[int, int]:
    """Return the bytes read from and written to disks since boot."""
    bytes_read = bytes_written = 0
    for line in read("/proc/diskstats").split(b"\n"):
        fields = line.split()
        # Only real disks are counted. Partitions, loop devices and mappings would
        # count the same bytes again.
        if len(fields) > 9 and os.path.exists(
            "/sys/block/%s/device" % os.fsdecode(fields[2])
        ):
            bytes_read += int(fields[5]) * 512
            bytes_written += int(fields[9]) * 512
    return bytes_read, bytes_written


def _network_traffic() -> Tuple[int, int]:
    """Return the bytes received and sent by real network devices since boot."""
    received = sent = 0
    for line in read("/proc/net/dev").split(b"\n")[2:]:
        name, _, rest = line.partition(b":")
        fields = rest.split()
        if len(fields) > 8 and not os.fsdecode(name.strip()).startswith(VIRTUAL):
            received += int(fields[0])
            sent += int(fields[8])
    return received, sent


def _write(path: str, data: bytes, flags: int) -> None:
    flags |= os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
    fd = os.open(path, flags, 0o600)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)
