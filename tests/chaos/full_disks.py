"""Fills disks: the user's, and the box's."""

from __future__ import annotations

import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.chaos.world import Outcome, world

ROOM = 8 << 20
BOX_TOML = """\
[push]
data = ["data/"]

[run]
command = "mkdir -p results && cp data/big results/one && cp data/big results/two"

[fetch]
outputs = ["results/"]

[local.rehearse]
disk = "{size} MB"
"""
BIG = 1 << 20


def full_local_disk(chance: random.Random, count: int) -> Iterator[Outcome]:
    """
    Run chains whose state or project is on a disk that is too small.

    With more space, the same command continues. This needs root, to mount a disk.
    """
    for _ in range(count):
        with world() as made:
            made.begin()
            size = chance.randint(4, 60) << 12
            place = chance.choice([made.project.home / "state", made.project.root])
            if not _mount(place):
                return
            try:
                _fill(place, size)
                made.inv("run")
                made.check_files()
                (place / "filling").unlink()
                if made.persist("run") and made.persist("teardown"):
                    made.check(0)
                values = f"{size} bytes left for {place.name}"
                yield made.outcome("small disk here", values)
            finally:
                made.end()
                subprocess.run(["umount", "-l", str(place)], check=True)


def full_box_disk(chance: random.Random, count: int) -> Iterator[Outcome]:
    """Push, run and fetch with a box whose disk is too small for one of the steps."""
    for _ in range(count):
        size = chance.randint(5, 45) / 10
        with world(toml=BOX_TOML.format(size=size)) as made:
            made.begin()
            data = made.project.write("data/big", chance.randbytes(BIG))
            done = made.inv("run", "--keep", own=(1,))
            if done.code == 78:
                made.wrong.append(f"the settings were refused: {done.err}")
            results = made.project.root / "results"
            if not done.code:
                for name in ("one", "two"):
                    if (results / name).read_bytes() != data.read_bytes():
                        made.wrong.append(f"success, but {name} is not whole")
            if made.boxes():
                made.persist("teardown", "--discard-outputs", "--yes")
            made.check(0)
            values = f"a box with {size} MB"
            yield made.outcome("small disk on the box", values)


def _mount(place: Path) -> bool:
    """Mount a small disk over a directory and copy the directory's files to it."""
    place.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as kept:
        shutil.copytree(place, kept, dirs_exist_ok=True)
        options = ["-t", "tmpfs", "-o", f"size={ROOM},mode=700"]
        command = ["mount", *options, "onebox-test", str(place)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            return False
        shutil.copytree(kept, place, dirs_exist_ok=True)
    return True


def _fill(place: Path, left: int) -> None:
    free = shutil.disk_usage(place).free
    (place / "filling").write_bytes(bytes(max(free - left, 0)))
