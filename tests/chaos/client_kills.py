"""Kills clients at random moments, continues as a user would, and checks the result."""

from __future__ import annotations

import random
import signal
import subprocess
from collections.abc import Iterator

from tests.chaos.world import Outcome, World, world
from tests.conftest import Done

# A chain takes a second or two; most kills should meet it under way.
LONGEST = 1.8
LINES = [
    *[("run",)] * 6,
    *[("run", "--detach")] * 2,
    ("run", "--keep"),
    ("provision", "push"),
    ("push",),
    ("logs",),
    ("fetch",),
    ("fetch", "teardown"),
    ("cancel",),
    ("teardown",),
]


def kill_lines(made: World, chance: random.Random, kills: int) -> list[Outcome]:
    """
    Kill *kills* lines in a row, then type the suggested commands until no box is
    left.

    A line that ends before it is killed does not count.
    """
    made.begin()
    typed: list[str] = []
    fates: list[str] = []
    while len(fates) < kills:
        line, at = chance.choice(LINES), chance.random() * LONGEST
        if chance.random() < 0.5:
            made.new_number()
        named = len(made.named)
        killed = _type_and_kill(made, line, at)
        made.check_files()
        typed.append(f"{' '.join(line)} after {at:.3f} s")
        if killed:
            fates.append("survived")
        elif fates and len(made.named) > named:
            fates[-1] = "named"
    named = len(made.named)
    if made.persist("teardown", tries=10):
        made.check(0)
        made.check_second("teardown")
    if len(made.named) > named:
        fates[-1] = "named"
    if made.wrong:
        fates[-1] = "lost"
    data = f"inv {', '.join(typed)}"
    why = "\n".join([*made.wrong, *made.printed]) if made.wrong else ""
    return [
        Outcome("client killed at random", data, fate, why if fate == "lost" else "")
        for fate in fates
    ]


def client_kills(chance: random.Random, kills: int) -> Iterator[Outcome]:
    """Kill lines in one world until there were *kills*."""
    with world(seconds=0.3) as made:
        while kills > 0:
            outcomes = kill_lines(made, chance, min(chance.randint(1, 6), kills))
            kills -= len(outcomes)
            yield from outcomes
            made.forget_outputs()


def _type_and_kill(made: World, line: tuple[str, ...], after: float) -> bool:
    """Type a line and kill it after a time; return whether it was still running."""
    project = made.project
    process = project.start(*line)
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        process.kill()
    code = process.wait()
    made.judge(f"{' '.join(line)} (killed)", Done(code, "", project.err))
    return code == -signal.SIGKILL
