"""
The order of the tests, if several processes run them.

Each process gets one part of all tests, from the first to the last, and a process that
has none left takes tests from the end of another one's part. A test process starts a
cluster or machines for the tests of a module. So all tests of a cluster are together at
the beginning of a part: one process runs them, no second cluster starts at the same
time, and the processes of other parts use the CPUs while they wait.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")

# Each pattern is found in the ids of the tests that begin a part.
TOGETHER = (
    r"/(system|fakes)/test_ray|test_tally.*\[ray-",
    r"/(system|fakes)/test_slurm|test_tally.*\[slurm-",
    r"/providers/\w+/test_(reach_)?machines|/test_save_box",
    r"/test_user_data_on_machines|/fakes/test_machines|/test_sanitize",
)


def spread(items: Sequence[T], parts: int, name: Callable[[T], str]) -> list[T]:
    """
    Return the items in the order in which *parts* processes share them.

    Args:
        name: Returns the id of an item.
    """
    groups: list[list[T]] = [[] for _ in TOGETHER]
    others: list[T] = []
    for item in items:
        number = _number(name(item))
        (others if number is None else groups[number]).append(item)
    ordered: list[T] = []
    for part in range(parts):
        # The sizes of the parts are those of `--dist worksteal`.
        size = (len(items) - len(ordered)) // (parts - part)
        together = [item for group in groups[part::parts] for item in group]
        count = max(0, size - len(together))
        ordered += [*together, *others[:count]]
        del others[:count]
    return ordered + others


def _number(name: str) -> int | None:
    for number, pattern in enumerate(TOGETHER):
        if re.search(pattern, name):
            return number
    return None
