"""The disk of a box that was taken stays for as long as it may be of use."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from onebox import runner
from onebox.errors import NoCapacity, OutputsHeld, Preempted, UsageError
from onebox.providers.local.provider import Local
from onebox.providers.local.settings import LocalSettings
from onebox.providers.values import Box, Offer, Request, Requirements
from onebox.stages import fetch, run, teardown
from onebox.store.identity import owner
from onebox.store.paths import config_dir, local_root

from ..conftest import Project
from .inprocess import type_line
from .test_recover import JOB, TOML, pulled, starts

# An attempt whose box is going to be taken counts on until then.
END = """\
echo x >> ckpt/tries
end=9999
[ $(wc -l < ckpt/tries) -gt $(cat cuts) ] && end=$((n+4))
while"""


class Paid(Local):
    """A cloud whose boxes cost; of one that it takes it keeps the disk alone."""

    def __init__(self, root: Path) -> None:
        super().__init__(LocalSettings(), root)
        self.started = 0
        self.room = 99
        self.created: list[str] = []
        self.rescues: set[str] = set()
        self.disk_only = True

    def offers(self, need: Requirements) -> Sequence[Offer]:
        """Ask money for it."""
        return [replace(s, price=3.6, on_demand=7.2) for s in super().offers(need)]

    def create(self, request: Request) -> Box:
        """Make a box, as long as there is room."""
        if not self.room:
            raise NoCapacity("no room")
        self.room -= 1
        self.created.append(request.box)
        return super().create(request)

    def get(self, box: str, place: str = "") -> Box | None:
        """Return the box; off, it is a disk."""
        found = super().get(box, place)
        return found and self._seen(found)

    def find(
        self, owner: str, also: Sequence[str] = (), *, everywhere: bool = False
    ) -> Sequence[Box]:
        """Return the boxes; off, they are disks."""
        found = super().find(owner, also, everywhere=everywhere)
        return [self._seen(box) for box in found]

    def start(self, box: Box, deadline: float) -> Box:
        """Count the machines that it takes to read a disk."""
        self.started += 1
        self.rescues.add(box.id)
        return self._seen(super().start(box, deadline))

    def _seen(self, box: Box) -> Box:
        off = box.state == "stopped"
        rescue = box.id in self.rescues
        return replace(box, disk_only=off and self.disk_only, rescue=rescue)


class Line:
    """A command line of one project on the paid cloud, in this process."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.cloud = Paid(local_root(project.environ))

    def type(self, *stages: ModuleType, **options: Any) -> runner.BoxContext:
        """Run these stages, as `inv` would."""
        return type_line(self.project, self.cloud, *stages, **options)

    def run(self, cuts: int) -> runner.BoxContext:
        """Run the job; so many of its boxes are taken, each after a pull from it."""
        self.project.write("cuts", f"{cuts}")
        with power_cuts(self.project, cuts):
            return self.type(run)

    @property
    def owner(self) -> str:
        """Return whose boxes they are."""
        return owner(config_dir(self.project.environ))

    def boxes(self) -> dict[str, str]:
        """Return the state of each box there is."""
        boxes = (self.cloud.get(box) for box in self.project.boxes())
        return {box.id: box.state for box in boxes if box}


@pytest.fixture
def line(project: Project, monkeypatch: pytest.MonkeyPatch) -> Line:
    """A job with checkpoints, on spot capacity that costs."""
    project.write("onebox.toml", TOML.format(retries=2, rehearse=""))
    project.write("job.sh", JOB.replace("-lt 10", "-lt $end").replace("while", END))
    for name in list(os.environ):
        if name.startswith("ONEBOX_"):
            monkeypatch.delenv(name)
    return Line(project)


def test_stays_until_the_job_has_ended(
    line: Line, capfd: pytest.CaptureFixture[str]
) -> None:
    """The next attempt goes on from the last pull, beside the disk; then both go."""
    line.run(1)
    said = capfd.readouterr()

    first, second = starts(said.out)
    assert 0 == first < second
    assert "is kept until the job has ended" in said.err
    assert 0 == line.cloud.started
    assert {} == line.boxes()
    assert f"{second + 4}\n" == line.project.read("ckpt/step")
    assert "in 2 boxes" in said.err
    # A minute is billed at least: two boxes, 3.60 an hour.
    assert "$0.12" in said.err


def test_stays_after_the_last_retry(
    line: Line, capfd: pytest.CaptureFixture[str]
) -> None:
    """What no attempt has made worthless stays: teardown refuses, rescue reads it."""
    with pytest.raises(Preempted) as gone:
        line.run(3)

    assert 75 == gone.value.code
    assert "inv fetch --rescue" in gone.value.next
    assert ["stopped"] * 3 == list(line.boxes().values())
    assert 0 == line.cloud.started
    with pytest.raises(UsageError, match=r"needs another machine.*7\.20"):
        line.type(fetch)
    with pytest.raises(OutputsHeld, match="only the disk of"):
        line.type(teardown)
    assert 0 == line.cloud.started
    line.type(fetch, rescue=True)
    assert 1 == line.cloud.started
    assert ["stopped"] * 3 == list(line.boxes().values())
    assert int(line.project.read("ckpt/step")) >= pulled(line.project) > 0
    with pytest.raises(OutputsHeld, match="its job has not ended since"):
        line.type(teardown)
    assert 2 == len(line.boxes())
    line.type(teardown, discard=True, yes=True)
    assert {} == line.boxes()
    assert 1 == line.cloud.started
    capfd.readouterr()


def test_no_room_for_the_next(line: Line, capfd: pytest.CaptureFixture[str]) -> None:
    """Without room for another box the disk stays, and the way on is named."""
    line.cloud.room = 1
    with pytest.raises(NoCapacity) as full:
        line.run(1)

    assert "inv run resumes from them" in full.value.next
    assert ["stopped"] == list(line.boxes().values())
    line.cloud.room = 9
    line.type(run)
    assert {} == line.boxes()
    assert starts(capfd.readouterr().out)[1] > 0


def test_max_cost_is_for_all_attempts(
    line: Line, capfd: pytest.CaptureFixture[str]
) -> None:
    """What all attempts together could cost is held against the limit."""
    text = line.project.read("onebox.toml")
    # 3.60 an hour for an hour at most; the minute that is spent makes it too much.
    text = text.replace("[limits]", "[limits]\nmax_hours = 1\nmax_cost = 3.65")
    line.project.write("onebox.toml", text)
    with pytest.raises(Preempted, match=r"\$0.06 is spent.*max_cost = \$3.65"):
        line.run(1)
    capfd.readouterr()


@contextmanager
def power_cuts(project: Project, count: int) -> Iterator[None]:
    """Take the box of so many attempts, each once a pull of it is here."""
    over = threading.Event()

    def cut() -> None:
        seen: set[str] = set()
        while len(seen) < count and not over.wait(0.02):
            for about in project.root.glob(".onebox/checkpoints/*/[0-9]*/pull.json"):
                with suppress(FileNotFoundError):
                    job = json.loads(about.read_bytes())["job"]
                    if job not in seen and pulled(project):
                        seen.add(job)
                        project.cut_power()

    thread = threading.Thread(target=cut)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
