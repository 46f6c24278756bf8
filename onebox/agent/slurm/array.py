"""
The units of a job as a job array: each task runs its share of the units, in turn.

Slurm gives a task what one unit needs. The directory of a task is like that of a job
(see `onebox.agent.units.share`). After all tasks have ended, the first agent that reads
the state of the job publishes its exit record, which it makes from those of the tasks.
"""

from __future__ import annotations

import json
import os
import re
from typing import Callable, List, NamedTuple, Optional, Tuple

from ..box import BoxConfig
from ..box import read as read_file
from ..jobs import exit_record, job_state
from ..jobs.exit_record import StoredExitRecord
from ..units import plan as unit_plan
from ..units import progress as unit_progress
from ..units import share
from ..units.progress import Progress
from .scheduler import SchedulerError, scheduler_of

# An array has at most this many tasks, and at most MaxArraySize - 1 (slurm.conf(5):
# 1001 unless the cluster's administrators have set another number).
MOST_TASKS = 1000
# The log of the job has at most this many lines of its tasks.
MOST_LINES = 200
# This file in the directory of the job has the number of tasks.
SIZE = "array.json"
MAX_ARRAY_SIZE = re.compile(r"^MaxArraySize\s*=\s*([0-9]+)", re.MULTILINE)


class Shape(NamedTuple):
    """
    The number of tasks, and how many of them run *at_once*.

    A task has *cpus* CPUs and *memory* bytes; 0 means Slurm's own default.
    """

    tasks: int
    at_once: int
    cpus: int
    memory: int


def shape(box: BoxConfig, directory: str) -> Optional[Shape]:
    """Return the shape of the job in *directory*, None if it has no units."""
    if not os.path.exists(os.path.join(directory, unit_plan.NAME)):
        return None
    plan = unit_plan.UnitPlan(share.Share(directory))
    count, head = len(plan), plan.head
    plan.close()
    at_once, cpus, memory = _sizes(box, head)
    tasks = min(count, MOST_TASKS, _longest_array(box))
    return Shape(tasks, min(at_once, tasks), cpus, memory)


def first_progress(box: BoxConfig, directory: str) -> Progress:
    """Return the counts of a job before a task of it has started."""
    plan = unit_plan.UnitPlan(share.Share(directory))
    count, at_once = len(plan), _sizes(box, plan.head)[0]
    plan.close()
    return Progress(count, 0, 0, 0, count, 0, min(at_once, count), None)


def has_ended(directory: str) -> bool:
    """Return whether all tasks of the job in *directory* have ended by themselves."""
    tasks = share.directories(directory)
    return 0 < submitted_tasks(directory) <= len(tasks) and all(map(_has_ended, tasks))


def is_alive(directory: str, is_fresh: Callable[[str], bool]) -> bool:
    """Return whether a task of the job in *directory* has a fresh heartbeat."""
    tasks = share.directories(directory)
    return any(is_fresh(task) and not _has_ended(task) for task in tasks)


def submitted_tasks(directory: str) -> int:
    """Return how many tasks the job in *directory* has, 0 if that is unknown."""
    try:
        return int(json.loads(read_file(os.path.join(directory, SIZE)))["tasks"])
    except (ValueError, KeyError, TypeError):
        return 0


def _has_ended(task: str) -> bool:
    return os.path.exists(os.path.join(task, exit_record.NAME))


def records(directory: str) -> List[StoredExitRecord]:
    """Return the records of the tasks that have ended by themselves."""
    found = []
    for task in share.directories(directory):
        try:
            record = exit_record.read(task)
        except exit_record.Damaged:
            continue
        if record is not None:
            found.append(record)
    return found


def write_log(directory: str) -> None:
    """
    Write what the tasks have printed, such as failed units, to the log of the job.

    Only the first call does it. A task's own first line says how many units it has.
    """
    try:
        os.mkdir(os.path.join(directory, "log-written"), 0o700)
    except FileExistsError:
        return
    lines: List[bytes] = []
    for task in share.directories(directory):
        lines += read_file(os.path.join(task, "log")).splitlines()[1:]
        if len(lines) >= MOST_LINES:
            break
    with open(os.path.join(directory, "log"), "ab") as file:
        file.write(b"".join(line + b"\n" for line in lines[:MOST_LINES]))


def record_of(job: str, directory: str, cause: str) -> StoredExitRecord:
    """
    Return the exit record of a job whose tasks have all ended.

    Args:
        cause: Why tasks have ended without a record, such as "oom"; "" if none has.
    """
    counts = unit_progress.read(directory)
    parts = records(directory)
    left = counts["left"] if counts else 0
    complete = counts is not None and counts["done"] == counts["total"]
    stopped = [part.cause for part in parts if part.cause not in ("exit", "signal")]
    order = os.path.exists(os.path.join(directory, "cancel"))
    if order and left:
        cause = job_state.read_stop_order(directory).cause
    elif left:
        cause = (stopped or [cause])[0]
    else:
        cause = ""
    start = job_state.read_start(directory)
    begun = [part.started for part in parts] or [start.at if start else 0.0]
    ended = [part.ended for part in parts] or begun
    largest = max(parts, key=lambda part: part.memory_peak, default=None)
    code = 0 if complete else 1
    if order and left:
        code = 143
    return StoredExitRecord(
        job=job,
        code=code,
        cause=cause or "exit",
        log_bytes=os.stat(os.path.join(directory, "log")).st_size,
        started=min(begun),
        ended=max(ended),
        seconds=round(max(ended) - min(begun), 3),
        cpu_seconds=round(sum(part.cpu_seconds for part in parts), 2),
        memory_peak=largest.memory_peak if largest else 0,
        memory_largest=largest.memory_largest if largest else "",
    )


def _sizes(box: BoxConfig, head: unit_plan.Head) -> Tuple[int, int, int]:
    """Return how many units run at once, and the CPUs and bytes of one."""
    cpus, memory = int(box.scheduler["cpus"]), int(box.scheduler.get("memory", 0))
    at_once = max(cpus // head.cpus, 1)
    if head.memory and memory:
        at_once = max(min(at_once, memory // head.memory), 1)
    return at_once, head.cpus, head.memory or memory // at_once


def _longest_array(box: BoxConfig) -> int:
    try:
        found = MAX_ARRAY_SIZE.search(
            scheduler_of(box).show(["scontrol", "show", "config"])
        )
    except SchedulerError:
        return MOST_TASKS
    return max(int(found.group(1)) - 1, 1) if found else MOST_TASKS
