"""Kills processes of the box: jobs, their supervisors, the box itself."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.agent.test_supervisor import kill_something
from tests.chaos.world import Outcome, World, raw, world
from tests.conftest import Done
from tests.fakes.agent_box import AgentBox, kill, until


def supervisor_kills(chance: random.Random, count: int) -> Iterator[Outcome]:
    """
    Kill supervisor, job or both *count* times; no record may be false, no job may
    hang.
    """
    with tempfile.TemporaryDirectory() as place:
        box = AgentBox(Path(place))
        try:
            with box.connect() as link:
                for number in range(count):
                    lost = ""
                    try:
                        kill_something(
                            link, box, f"j{number}", chance, f"shot {number}"
                        )
                    except AssertionError as error:
                        lost = str(error)
                    verdict = "lost" if lost else "survived"
                    yield Outcome("job or its supervisor killed", "", verdict, lost)
            until(lambda: not box.strays())
        finally:
            box.close()


def crash_box(made: World, chance: random.Random) -> Outcome:
    """
    Kill a local box's supervisor, its machine, or both, while a chain works on it.

    The chain may end with 0 only if the outputs are here.
    """
    made.begin()
    made.new_number()
    supervisor, machine = "box_supervisor", "machine"
    victims = chance.choice([[supervisor], [machine], [supervisor, machine]])
    process = made.project.start("run")
    until(lambda: made.boxes() or process.poll() is not None)
    time.sleep(chance.random() * 1.2)
    hit = [pid for pid in made.processes() if _part(made, pid) in victims]
    for pid in hit:
        kill(pid)
    code = process.wait(300)
    made.judge("run (its box killed)", Done(code, "", made.project.err))
    output = made.project.root / "results" / f"{made.number}.txt"
    if not code and not output.exists():
        made.wrong.append("the chain says success, and its output is not here")
    if made.persist("teardown", tries=8):
        made.check(0)
    return made.outcome(f"{' and '.join(victims)} of a box killed", "")


def box_crashes(chance: random.Random, count: int) -> Iterator[Outcome]:
    """Crash *count* boxes in one world."""
    with world(seconds=0.3) as made:
        for _ in range(count):
            yield crash_box(made, chance)


def _part(made: World, pid: int) -> str:
    """Return which part of our box a process is, or ""."""
    words = raw(Path(f"/proc/{pid}/cmdline")).split(b"\0")
    if len(words) < 8 or b"onebox.providers.local." not in words[4]:
        return ""
    return "" if made.decoy.encode() in words[7] else words[5].decode()
