"""The disk of a preempted box is kept as long as it may be needed."""

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

from onebox.context import BoxContext
from onebox.errors import NoCapacity, OutputsHeld, Preempted, UsageError
from onebox.providers.local.provider import Local
from onebox.providers.local.settings import LocalSettings
from onebox.providers.values import Box, Offer, Request, Requirements
from onebox.stages import fetch, provision, run, teardown
from onebox.store.identity import owner
from onebox.store.paths import config_dir, local_root
from tests.conftest import Project
from tests.inprocess import type_line
from tests.stages.test_preemption_recovery import JOB, TOML, first_steps, pulled_step

# An attempt whose box is going to be taken counts on until then.
END = """\
echo x >> ckpt/tries
end=9999
[ $(wc -l < ckpt/tries) -gt $(cat cuts) ] && end=$((n+4))
while"""


class Paid(Local):
    """A cloud with paid boxes; of a preempted box it keeps only the disk."""

    def __init__(self, root: Path) -> None:
        super().__init__(LocalSettings(), root)
        self.started = 0
        self.room = 99
        self.created: list[str] = []
        self.rescues: set[str] = set()
        self.disk_only = True

    def offers(self, need: Requirements) -> Sequence[Offer]:
        """Return offers with a price."""
        return [
            replace(s, machine_price=3.6, machine_on_demand=7.2)
            for s in super().offers(need)
        ]

    def create(self, request: Request) -> Box:
        """Create a box, as long as there is capacity."""
        if not self.room:
            raise NoCapacity("no room")
        self.room -= 1
        self.created.append(request.box)
        return super().create(request)

    def get(self, box: str, place: str = "") -> Box | None:
        """Return the box; a box that is off is only a disk."""
        found = super().get(box, place)
        return found and self._seen(found)

    def find(
        self, owner: str, also: Sequence[str] = (), *, everywhere: bool = False
    ) -> Sequence[Box]:
        """Return the boxes; those that are off are only disks."""
        found = super().find(owner, also, everywhere=everywhere)
        return [self._seen(box) for box in found]

    def start(self, box: Box, deadline: float) -> Box:
        """Count the machines that are started to read a disk."""
        self.started += 1
        self.rescues.add(box.id)
        return self._seen(super().start(box, deadline))

    def _seen(self, box: Box) -> Box:
        off = box.state == "stopped"
        rescue = box.id in self.rescues
        return replace(box, disk_only=off and self.disk_only, rescue=rescue)


class Line:
    """Command lines of one project on the paid cloud, in this process."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.cloud = Paid(local_root(project.environ))

    def type(self, *stages: ModuleType, **options: Any) -> BoxContext:
        """Run these stages, as `inv` would."""
        return type_line(self.project, self.cloud, *stages, **options)

    def run(self, cuts: int) -> BoxContext:
        """Run the job; *cuts* of its boxes are preempted, each after a pull."""
        self.project.write("cuts", f"{cuts}")
        with preempt_after_pulls(self.project, cuts):
            return self.type(run)

    @property
    def owner(self) -> str:
        """Return the owner of the boxes."""
        return owner(config_dir(self.project.environ))

    def boxes(self) -> dict[str, str]:
        """Return the state of each box."""
        boxes = (self.cloud.get(box) for box in self.project.boxes())
        return {box.id: box.state for box in boxes if box}


@pytest.fixture
def line(project: Project, monkeypatch: pytest.MonkeyPatch) -> Line:
    """A job with checkpoints on paid spot capacity."""
    project.write("onebox.toml", TOML.format(retries=2, rehearse=""))
    project.write("job.sh", JOB.replace("-lt 10", "-lt $end").replace("while", END))
    for name in list(os.environ):
        if name.startswith("ONEBOX_"):
            monkeypatch.delenv(name)
    return Line(project)


def test_preempted_disk_is_kept_until_the_job_has_ended(
    line: Line, capfd: pytest.CaptureFixture[str]
) -> None:
    """The next attempt continues from the last pull; then both boxes are deleted."""
    line.run(1)
    printed = capfd.readouterr()

    first, second = first_steps(printed.out)
    assert 0 == first < second
    assert "is kept until the job has ended" in printed.err
    assert 0 == line.cloud.started
    assert {} == line.boxes()
    assert f"{second + 4}\n" == line.project.read("ckpt/step")
    assert "in 2 boxes" in printed.err
    # A minute is billed at least: two boxes, 3.60 an hour.
    assert "$0.12" in printed.err


def test_preempted_disk_is_kept_after_the_last_retry(
    line: Line, capfd: pytest.CaptureFixture[str]
) -> None:
    """A needed disk stays: teardown is refused, and rescue reads it."""
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
    assert int(line.project.read("ckpt/step")) >= pulled_step(line.project) > 0
    with pytest.raises(OutputsHeld, match="its job has not ended since"):
        line.type(teardown)
    assert 2 == len(line.boxes())
    line.type(teardown, discard=True, yes=True)
    assert {} == line.boxes()
    assert 1 == line.cloud.started
    capfd.readouterr()


def test_preempted_disk_gives_its_outputs_though_onebox_toml_names_others_now(
    line: Line, capfd: pytest.CaptureFixture[str]
) -> None:
    """The outputs of a job are those that onebox.toml named when the job started."""
    text = TOML.format(retries=0, rehearse="")
    line.project.write("onebox.toml", text)
    with pytest.raises(Preempted):
        line.run(1)
    line.project.write("onebox.toml", text.replace('"results/"', '"other/"'))
    line.type(provision)

    assert ["running"] == list(line.boxes().values())
    assert list(line.project.root.glob(".onebox/jobs/*/outputs/results/started"))
    line.type(teardown)
    capfd.readouterr()


def test_preempted_disk_is_kept_without_capacity_for_the_next_box(
    line: Line, capfd: pytest.CaptureFixture[str]
) -> None:
    """
    If no other box can be created, the disk stays, and the error has the next
    command.
    """
    line.cloud.room = 1
    with pytest.raises(NoCapacity) as full:
        line.run(1)

    assert "inv run resumes from them" in full.value.next
    assert ["stopped"] == list(line.boxes().values())
    line.cloud.room = 9
    line.type(run)
    assert {} == line.boxes()
    assert first_steps(capfd.readouterr().out)[1] > 0


def test_max_cost_holds_for_all_attempts_together(
    line: Line, capfd: pytest.CaptureFixture[str]
) -> None:
    """The possible cost of all attempts is compared with the limit."""
    text = line.project.read("onebox.toml")
    # 3.60 an hour for an hour at most; the minute that is spent makes it too much.
    text = text.replace("[limits]", "[limits]\nmax_hours = 1\nmax_cost = 3.65")
    line.project.write("onebox.toml", text)
    with pytest.raises(Preempted, match=r"\$0.06 is spent.*max_cost = \$3.65"):
        line.run(1)
    capfd.readouterr()


@contextmanager
def preempt_after_pulls(project: Project, count: int) -> Iterator[None]:
    """Preempt the boxes of *count* attempts, each after one of its pulls."""
    over = threading.Event()

    def cut() -> None:
        seen: set[str] = set()
        while len(seen) < count and not over.wait(0.02):
            for about in project.root.glob(".onebox/checkpoints/*/[0-9]*/pull.json"):
                with suppress(FileNotFoundError):
                    job = json.loads(about.read_bytes())["job"]
                    if job not in seen and pulled_step(project):
                        seen.add(job)
                        project.cut_power()

    thread = threading.Thread(target=cut)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
