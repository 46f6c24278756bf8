"""
Injects faults of every kind, counts how each one ended, and prints the tally.

    python -m tests.chaos.tally [--seed S] [--full] [--jobs N] [--only KIND ...]

Without `--full` only the small part runs that is also a test. The kinds are
`steps`, `full`, `results`, `units`, `disks`, `clients`, `boxes`, `connections`,
`files`, `crowd`, `slurm` and `ray`.
The exit code is 1 if any fault ended in the last column: an output, a box or a state
was lost, a file or box of others was changed, or an error had no name.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import functools
import queue
import random
import secrets
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence

from tests.chaos import (
    box_kills,
    broken_connections,
    client_kills,
    concurrent_commands,
    damaged_files,
    full_disks,
    kill_at_each_step,
    ray_faults,
    result_matrix,
    slurm_faults,
    unit_kills,
)
from tests.chaos.world import Outcome

Work = Callable[[], Iterator[Outcome]]
Make = Callable[[random.Random, int], Iterator[Outcome]]

VERDICTS = ("survived", "named", "lost")
# The functions that inject random faults, with their number in the tests and in full.
RANDOM: dict[str, list[tuple[Make, int, int]]] = {
    "clients": [(client_kills.client_kills, 8, 1000)],
    "boxes": [(box_kills.supervisor_kills, 13, 1000), (box_kills.box_crashes, 2, 100)],
    "connections": [(broken_connections.round_trips, 4, 200)],
    "disks": [(full_disks.full_local_disk, 2, 60), (full_disks.full_box_disk, 2, 60)],
    "files": [(damaged_files.cuts, 4, 400), (damaged_files.hostile_names, 1, 10)],
    "crowd": [(concurrent_commands.rounds, 2, 200)],
    "units": [
        (unit_kills.box_kills, 1, 200),
        (unit_kills.preemptions, 1, 50),
        (unit_kills.full_disks, 1, 50),
        (unit_kills.cuts, 1, 100),
    ],
    "slurm": [
        (slurm_faults.client_kills, 1, 100),
        (slurm_faults.controller_kills, 1, 40),
        (slurm_faults.node_failures, 1, 40),
        (slurm_faults.cut_logins, 1, 40),
    ],
    "ray": [(ray_faults.rounds, 2, 300)],
}
# The number of random faults in one world, in full and in the tests.
TOGETHER, FEW_TOGETHER = 25, 13
# The number of scenes, and of the steps of each, in the tests.
FEW_SCENES, FEW_STEPS = 4, 1


def plan(seed: int, *, full: bool, only: Sequence[str] = ()) -> dict[str, list[Work]]:
    """Return the work in parts that are independent of each other."""
    parts: dict[str, list[Work]] = {}
    for kind, fault in (
        ("steps", kill_at_each_step.KILL),
        ("full", kill_at_each_step.FULL),
    ):
        scenes = list(kill_at_each_step.SCENES.values())
        if not full:
            scenes = random.Random(f"{seed} {kind}").sample(scenes, FEW_SCENES)
        few = 0 if full else FEW_STEPS
        parts[kind] = [
            functools.partial(kill_at_each_step.all_of, scene, fault, few, seed)
            for scene in scenes
        ]
    parts["results"] = [
        functools.partial(result_matrix.all_of, cells, seed)
        for cells in result_matrix.table(seed, full=full)
    ]
    together = TOGETHER if full else FEW_TOGETHER
    for kind, rows in RANDOM.items():
        parts[kind] = []
        for make, small, large in rows:
            left = large if full else small
            while left > 0:
                chance = random.Random(
                    f"{seed} {make.__module__} {make.__name__} {left}"
                )
                count = min(left, together)
                parts[kind].append(functools.partial(make, chance, count))
                left -= together
    steps = range(unit_kills.PARTS if full else 1)
    parts["units"] += [
        functools.partial(unit_kills.client_kills, part, full=full, seed=seed)
        for part in steps
    ]
    return {kind: work for kind, work in parts.items() if not only or kind in only}


def in_threads(
    work: Iterable[tuple[str, Work]], jobs: int
) -> Iterator[tuple[str, Outcome]]:
    """Yield the kind and outcomes of each part from *jobs* threads."""
    todo: queue.SimpleQueue[tuple[str, Work]] = queue.SimpleQueue()
    for one in work:
        todo.put(one)
    done: queue.SimpleQueue[tuple[str, Outcome] | None] = queue.SimpleQueue()

    def run() -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                kind, part = todo.get_nowait()
                try:
                    for outcome in part():
                        done.put((kind, outcome))
                except Exception as error:
                    why = "".join(traceback.format_exception(None, error, None))
                    done.put((kind, Outcome("the tally itself", "", "lost", why)))
        done.put(None)

    for _ in range(jobs):
        threading.Thread(target=run, daemon=True).start()
    while jobs:
        data = done.get()
        if data is None:
            jobs -= 1
        else:
            yield data


def main() -> int:
    """Do the work, several parts at a time, and print the tally."""
    asked = _arguments()
    # An interrupted tally prints what it has so far.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    print(f"seed {asked.seed}", flush=True)
    began, count = time.monotonic(), 0
    table: dict[str, collections.Counter[str]] = collections.defaultdict(
        collections.Counter
    )
    parts = plan(asked.seed, full=asked.full, only=asked.only)
    with contextlib.suppress(KeyboardInterrupt):
        work = [(kind, part) for kind, several in parts.items() for part in several]
        for _, outcome in in_threads(work, asked.jobs):
            table[outcome.kind][outcome.verdict] += 1
            count += 1
            if not count % 50:
                sys.stderr.write(f"{count} in {time.monotonic() - began:.0f} s\n")
                sys.stderr.flush()
            if outcome.verdict == "lost":
                data = f"LOST: {outcome.kind}: {outcome.fault}\n{outcome.why}\n\n"
                sys.stderr.write(data)
                sys.stderr.flush()
    _print(table, time.monotonic() - began)
    return int(not table or any(row["lost"] for row in table.values()))


def _print(table: dict[str, collections.Counter[str]], seconds: float) -> None:
    width = max([len(kind) for kind in table] + [10])
    heads = ("injected", *VERDICTS)
    print(" ".join([f"{'fault':<{width}}", *(f"{head:>9}" for head in heads)]))
    whole: collections.Counter[str] = sum(table.values(), collections.Counter())
    for kind, row in [*sorted(table.items()), ("all", whole)]:
        numbers = (sum(row.values()), *(row[verdict] for verdict in VERDICTS))
        print(" ".join([f"{kind:<{width}}", *(f"{n:>9,}" for n in numbers)]))
    print(f"in {seconds:.0f} s")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.tally")
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    parser.add_argument("--full", action="store_true", help="all faults; takes hours")
    parser.add_argument("--jobs", type=int, default=2, help="parts at a time")
    kinds = ["steps", "full", "results", *RANDOM]
    parser.add_argument("--only", nargs="*", default=(), choices=kinds)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
