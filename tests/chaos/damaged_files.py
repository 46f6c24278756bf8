"""Cuts state files at any byte, and transfers files with hostile names."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

from onebox.transfer.select import RECEIPT
from tests.chaos.world import Outcome, World, world

LINES = [("status",), ("plan",), ("fetch",), ("push",), ("run", "--keep")]
TOML = """\
[push]
data = ["data/"]

[run]
command = "mkdir -p results && cp -a data/. results/"

[fetch]
outputs = ["results/"]
"""
NAMES = 1000
SPECIAL = [b"-rf", b"~", b" ", b"\n", b"a\nb", b"$(id)", b"*", b"\\", b'"', b"'", b";"]
SPECIAL += [b"%s", b"{}", b"#", b"\xff", b"\xc3", b"\x1b[2J", b"\r", b"\t", b"=", b"@"]


def cuts(chance: random.Random, count: int) -> Iterator[Outcome]:
    """Cut a state file at a random byte, and type further commands."""
    with world() as made:
        made.persist("run", "--keep")
        for number in range(count):
            yield _cut(made, chance, last=number == count - 1)


def hostile_names(chance: random.Random, count: int) -> Iterator[Outcome]:
    """Push a thousand files with hostile names and fetch them again."""
    for _ in range(count):
        with world(toml=TOML) as made:
            made.begin()
            data, results = made.project.root / "data", made.project.root / "results"
            data.mkdir()
            expected = {name: chance.randbytes(20) for name in _names(chance)}
            for name, content in expected.items():
                (data / name).write_bytes(content)
            if made.persist("run"):
                found = {p.name: p.read_bytes() for p in results.iterdir()}
                found.pop(RECEIPT, None)
                if found != expected:
                    made.wrong.append("names or contents are not as they were")
            made.check(0)
            yield made.outcome("1,000 hostile names", "")


def _cut(made: World, chance: random.Random, *, last: bool) -> Outcome:
    made.begin()
    path = chance.choice(_state_files(made))
    whole = path.read_bytes()
    at = chance.randrange(max(len(whole), 1))
    path.write_bytes(whole[:at])
    if chance.random() < 0.3:
        made.new_number()
    line = ("teardown",) if last else chance.choice(LINES)
    done = made.inv(*line)
    if path.name == "owner" and done.code:
        # Without the owner's id no box can be found, so the error asks for it.
        path.write_bytes(whole)
    made.persist(*line)
    boxes = 0 if last else 1
    if len(made.boxes()) != boxes:
        made.wrong.append(f"boxes: {made.boxes()} instead of {boxes}")
    made.check_outputs()
    made.check_decoy()
    for superseded in made.project.home.rglob("*.corrupt-*"):
        superseded.unlink()
    values = f"{path.name} cut at {at}, then inv {' '.join(line)}"
    return made.outcome("state file cut", values)


def _state_files(made: World) -> list[Path]:
    """Return the files in which commands keep boxes, jobs and outputs."""
    home = made.project.home
    tops = (home / "state", home / "config", made.project.root / ".onebox")
    found = (path for top in tops for path in top.rglob("*"))
    return sorted(
        path
        for path in found
        # A log belongs to its job, and only the user can replace a lost key.
        if path.is_file() and path.name not in ("log", "identity")
    )


def _names(chance: random.Random) -> list[str]:
    letters = [bytes([n]) for n in range(1, 256) if n != ord("/")]
    found = set(SPECIAL)
    while len(found) < NAMES:
        found.add(b"".join(chance.choices(letters, k=chance.randint(1, 255))))
    return sorted(os.fsdecode(name) for name in found - {b".", b".."})
