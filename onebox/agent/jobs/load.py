"""Measure what the box and its job use now: CPU, memory, disk and GPUs."""

from __future__ import annotations

import os
import subprocess
import time
from typing import Any, Dict, List, Optional

from .. import processes
from ..box import BoxConfig, cpus, disk_space, memory
from ..protocol import Channel, Refused
from ..units import plan as unit_plan
from . import engine, job_state, metrics

# The CPU load is measured over this many seconds.
SPAN = 0.5
# nvidia-smi may take this many seconds before it is given up.
PATIENCE = 10.0
GPU_FIELDS = "name,utilization.gpu,memory.used,memory.total"
MIB = 1 << 20


def load(channel: Channel, box: BoxConfig, request: Dict[str, Any]) -> Dict[str, Any]:
    """Return the load of the box, of its running job if there is one, and of GPUs."""
    job = job_state.running(box)
    if box.scheduler:
        return _of_node(box, job)
    start = job_state.read_start(box.path("jobs", job)) if job else None
    supervisor = start.pid if start else 0
    began, busy = time.monotonic(), metrics.busy_seconds()
    job_before = _job_seconds(supervisor)
    gpus = _gpus()
    time.sleep(max(0.0, SPAN - (time.monotonic() - began)))
    span = time.monotonic() - began
    used, total = memory()
    free, size = disk_space(box.work)
    everything = processes.all_processes() if supervisor else []
    family = processes.descendants(supervisor, everything)
    job_used = processes.cpu_seconds(supervisor, everything) - job_before
    return {
        "cpu": round((metrics.busy_seconds() - busy) / span, 2),
        "cpus": cpus(),
        "memory": used,
        "memory_total": total,
        "disk_free": free,
        "disk_total": size,
        "gpus": gpus,
        "job": job if supervisor else None,
        "job_seconds": max(time.time() - start.at, 0.0) if start else None,
        "job_cpu": round(max(job_used, 0.0) / span, 2),
        "job_memory": sum(process.memory for process in family),
        "job_processes": len(family),
    }


OPS = {"load": load}


def _of_node(box: BoxConfig, job: Optional[str]) -> Dict[str, Any]:
    """
    Return the load of the node that runs the job, from the job's latest sample.

    How many processes the job has is unknown.

    Raises `Refused` if no job runs, if the job waits in the queue, or if it runs as a
    job array on many nodes.
    """
    if job is None:
        raise Refused("load", "no job of this box runs now")
    elsewhere, directory = engine.of(box), box.path("jobs", job)
    waiting = elsewhere.waiting(box, job) if elsewhere else ""
    if waiting:
        raise Refused("load", "job %s waits in the queue: %s" % (job, waiting))
    sample = metrics.latest(directory)
    if sample is None and os.path.exists(os.path.join(directory, unit_plan.NAME)):
        raise Refused("load", "the units of job %s run on many nodes" % job)
    if sample is None:
        raise Refused("load", "job %s has not been measured yet" % job)
    return {
        "cpu": sample.cpu,
        "cpus": sample.cpus,
        "memory": sample.memory,
        "memory_total": sample.memory_total,
        "disk_free": sample.disk_free,
        "disk_total": sample.disk_total,
        "gpus": [],
        "job": job,
        "job_seconds": sample.seconds,
        "job_cpu": sample.job_cpu or 0.0,
        "job_memory": sample.job_memory,
        "job_processes": None,
    }


def _job_seconds(supervisor: int) -> float:
    if not supervisor:
        return 0.0
    return processes.cpu_seconds(supervisor, processes.all_processes())


def _gpus() -> List[Dict[str, Any]]:
    """Return the load of each GPU; [] if the box has no nvidia-smi, or it fails."""
    try:
        done = subprocess.run(
            [
                "nvidia-smi",
                "--query-gpu=" + GPU_FIELDS,
                "--format=csv,noheader,nounits",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    found = []
    for line in done.stdout.decode("utf-8", "replace").splitlines():
        fields = [field.strip() for field in line.rsplit(",", 3)]
        if done.returncode == 0 and len(fields) == 4:
            name, percent, used, total = fields
            in_use, size = _number(used), _number(total)
            found.append(
                {
                    "name": name,
                    "percent": _number(percent),
                    "memory": None if in_use is None else in_use * MIB,
                    "memory_total": None if size is None else size * MIB,
                }
            )
    return found


def _number(text: str) -> Optional[int]:
    """Return the number in a field of nvidia-smi, None for "[N/A]"."""
    return int(text) if text.isdigit() else None
