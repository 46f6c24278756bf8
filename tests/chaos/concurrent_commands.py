"""Types several commands about one box at once: one works, the others are refused."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Iterator

from tests.chaos.world import Outcome, World, world
from tests.conftest import Done

LINES = [("run",), ("run",), ("push",), ("provision",), ("teardown",), ("fetch",)]


def type_at_once(made: World, chance: random.Random) -> Outcome:
    """Start two to eight lines at once; two boxes of one name must never exist."""
    made.begin()
    lines = [chance.choice(LINES) for _ in range(chance.randint(2, 8))]
    made.new_number()
    running = []
    for number, line in enumerate(lines):
        time.sleep(chance.random() * 0.1)
        errors = (made.project.home / f"err-{number}").open("w+")
        process = subprocess.Popen(
            made.project.argv(*line),
            cwd=made.project.root,
            env=made.project.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
        running.append((line, process, errors))
    while any(process.poll() is None for _, process, _ in running):
        _one_box(made)
        time.sleep(0.02)
    for line, process, errors in running:
        with errors:
            errors.seek(0)
            made.judge(" ".join(line), Done(process.wait(), "", errors.read()))
    _one_box(made)
    if chance.random() < 0.5 and made.persist("run"):
        made.check_outputs()
    if made.persist("teardown"):
        made.check(0)
    data = f"at once: {', '.join(' '.join(line) for line in lines)}"
    return made.outcome("commands at once", data)


def rounds(chance: random.Random, count: int) -> Iterator[Outcome]:
    """Do this *count* times in one world."""
    with world(seconds=0.1) as made:
        for _ in range(count):
            yield type_at_once(made, chance)


def _one_box(made: World) -> None:
    whole = [name for name in made.boxes() if not name.startswith(".")]
    if len(whole) > 1:
        made.wrong.append(f"two boxes of one name: {whole}")
