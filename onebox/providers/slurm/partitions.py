"""
The partitions of a cluster, from the lines that `sinfo` prints.

`sbatch --test-only` is not asked whether a job could run: it also refuses what could
run once a drained node is back, and accepts a time limit above that of the partition
(seen with 22.05).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from onebox import formatting
from onebox.agent.file_names import printable
from onebox.errors import UsageError

# sinfo(1), "--format=%l": "days-hours:minutes:seconds" or "infinite".
_TIME = re.compile(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)")


class TimeLimit(NamedTuple):
    """The longest time that a job may take in a partition; *text* is Slurm's own."""

    partition: str
    minutes: int
    text: str


class Total(NamedTuple):
    """What nodes have together; *memory* is in bytes."""

    cpus: int
    memory: int


class _Nodes(NamedTuple):
    """Nodes of the same size in a partition; *memory* is in MiB."""

    partition: str
    is_default: bool
    state: str
    limit: str
    cpus: int
    memory: int
    nodes: str


def check(facts: Mapping[str, Any], partition: str | None) -> None:
    """Raise UsageError if the cluster has no partition of this name."""
    names = {one.partition for one in _all(facts)}
    missing = set((partition or "").split(",")) - names - {""}
    if names and missing:
        raise UsageError(
            f"there is no partition {formatting.first_names(sorted(missing))}; the "
            f"cluster has {describe(facts)}",
            next="[slurm] partition in onebox.toml",
        )


def seconds_of(text: str) -> float:
    """Return the seconds of a time limit, as sbatch(1) reads `--time`."""
    days, dash, rest = text.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if dash:
        hours, minutes, seconds = (*parts, 0, 0)[:3]
    elif len(parts) == 3:
        hours, minutes, seconds = parts
    else:
        hours, minutes, seconds = 0, *(*parts, 0)[:2]
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60.0 + seconds


def can_run(
    facts: Mapping[str, Any], partition: str | None, cpus: int, memory: int
) -> bool:
    """
    Return whether a node of the partition has so many CPUs and bytes of memory.

    If the cluster's partitions are unknown, Slurm itself decides later.
    """
    nodes = list(_of(facts, partition))
    return not nodes or any(
        one.cpus >= cpus and one.memory >= memory >> 20 for one in nodes
    )


def total(facts: Mapping[str, Any], partition: str | None) -> Total | None:
    """Return what all nodes of the partition have, None if they are unknown."""
    nodes = [(one, int(one.nodes)) for one in _of(facts, partition)]
    if not nodes:
        return None
    return Total(
        sum(one.cpus * count for one, count in nodes),
        sum((one.memory << 20) * count for one, count in nodes),
    )


def of_one_node(
    facts: Mapping[str, Any], partition: str | None, cpus: int, memory: int
) -> tuple[int, int]:
    """Return so many CPUs and bytes, or less if no node has as many."""
    nodes = list(_of(facts, partition))
    if not nodes or can_run(facts, partition, cpus, memory):
        return cpus, memory
    largest = max(nodes, key=lambda one: (one.cpus, one.memory))
    return min(cpus, largest.cpus), min(memory, largest.memory << 20)


def time_limit(facts: Mapping[str, Any], partition: str | None) -> TimeLimit | None:
    """
    Return the time limit of a partition, None if it has none.

    Args:
        facts: What the login node reports about the cluster.

        partition: Its name; None means the cluster's default partition.
    """
    for nodes in _of(facts, partition):
        found = _TIME.fullmatch(nodes.limit)
        if found is None:
            return None
        days, hours, minutes = (int(part or 0) for part in found.groups()[:3])
        total = (days * 24 + hours) * 60 + minutes
        return TimeLimit(nodes.partition, max(total, 1), nodes.limit)
    return None


def describe(facts: Mapping[str, Any]) -> str:
    """Return the partitions with the sizes of their nodes, in one phrase."""
    found = []
    for one in _all(facts):
        down = "" if one.state == "up" else f", {one.state}"
        limit = "" if one.limit == "infinite" else f", at most {one.limit}"
        size = f"{one.cpus} CPUs, {formatting.byte_count(one.memory << 20)}"
        default = " (default)" if one.is_default else ""
        found.append(f"{one.partition}{default}: {one.nodes} x {size}{limit}{down}")
    return formatting.first_names(found, 6) if found else "no partition"


def _of(facts: Mapping[str, Any], partition: str | None) -> Iterator[_Nodes]:
    names = partition.split(",") if partition else []
    for one in _all(facts):
        if one.partition in names or (not names and one.is_default):
            yield one


def _all(facts: Mapping[str, Any]) -> Iterator[_Nodes]:
    for line in str(facts.get("partitions", "")).splitlines():
        fields = [printable(field.strip()) for field in line.split("|")]
        if len(fields) < 6:
            continue
        name, state, limit, cpus, memory, nodes = fields[:6]
        if all(field.isdigit() for field in (cpus, memory, nodes)):
            default = name.endswith("*")
            name = name.rstrip("*")
            yield _Nodes(name, default, state, limit, int(cpus), int(memory), nodes)
