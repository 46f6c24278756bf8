"""Divide the CPUs of the box among the units that run at once."""

from __future__ import annotations

import os
from typing import List, Set

from .. import box
from ..box import read

TOPOLOGY = "/sys/devices/system/cpu"


def at_once(cpus: int, memory: int) -> int:
    """
    Return how many units run at once, at least 1.

    A unit needs *cpus* CPUs and *memory* bytes; 0 bytes mean that memory sets no limit.
    """
    most = box.cpus() // cpus
    total = box.memory()[1]
    if memory and total:
        most = min(most, total // memory)
    return max(1, most)


def slots(cpus: int, count: int) -> List[Set[int]]:
    """
    Return *count* disjoint sets of *cpus* CPUs each.

    If *cpus* is more than the box has, a set has all CPUs. The sets are empty on a
    system that cannot bind a process to CPUs.
    """
    if not hasattr(os, "sched_getaffinity"):
        return [set() for _ in range(count)]
    order = ordered(os.sched_getaffinity(0))
    # If there are fewer units than places, they are spread over the cores.
    places = max(len(order) // cpus, 1)
    starts = [n * places // count * cpus for n in range(count)]
    return [set(order[start : start + cpus]) for start in starts]


def ordered(allowed: Set[int], topology: str = TOPOLOGY) -> List[int]:
    """Return the CPUs *allowed*, with hyperthreads of one core next to each other."""
    found: List[int] = []
    for cpu in sorted(allowed):
        if cpu not in found:
            path = "%s/cpu%d/topology/thread_siblings_list" % (topology, cpu)
            found += sorted((_parse(read(path)) | {cpu}) & allowed - set(found))
    return found


def _parse(text: bytes) -> Set[int]:
    """Return the CPUs in a list of the kernel such as 0-1,64; none if it is damaged."""
    found: Set[int] = set()
    try:
        for part in text.split(b","):
            first, _, last = part.partition(b"-")
            found.update(range(int(first), int(last or first) + 1))
    except ValueError:
        return set()
    return found
