"""The disk of a preempted box stays until the job itself has ended."""

from __future__ import annotations

import json
import shutil
import signal
import time

import pytest

from onebox.context import BoxContext
from onebox.errors import OneboxError, OutputsHeld
from onebox.providers.local.layout import Layout
from onebox.providers.values import Box, Request
from onebox.signals import Interrupted
from onebox.stages import fetch_preempted, push, run
from tests.providers.sshbox import wait_until
from tests.stages.test_preempted_disk import Line, line
from tests.stages.test_preemption_recovery import JOB, first_steps

__all__ = ["line"]


def test_failed_push_deletes_the_next_box_and_keeps_the_first_disk(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure on the next box deletes that box only."""
    line.project.write("d/x", "x")
    text = line.project.read("onebox.toml")
    text = text.replace("[fetch]", '[push]\ndata = ["d/"]\n[fetch]', 1)
    line.project.write("onebox.toml", text)
    create, boxes = line.cloud.create, []

    def made(request: Request) -> Box:
        boxes.append(request.box)
        if len(boxes) == 2:
            shutil.rmtree(line.project.root / "d")
        return create(request)

    monkeypatch.setattr(line.cloud, "create", made)
    with pytest.raises(OneboxError, match="d/ is not there"):
        line.run(1)

    assert {boxes[0]: "stopped"} == line.boxes()


@pytest.mark.parametrize("found", ["a disk", "off", "on"])
def test_next_run_reads_the_disk_and_uses_a_box_of_the_requested_size(
    line: Line, capfd: pytest.CaptureFixture[str], found: str
) -> None:
    """The disk is read and deleted, and the job continues on another box."""
    line.cloud.disk_only = found == "a disk"
    disk = preempt_detached_job(line)
    step = int((disk.home / "work/ckpt/step").read_text())
    created = list(line.cloud.created)
    line.project.write("cuts", "0")
    line.project.write("job.sh", JOB)
    if found == "on":
        (off,) = line.cloud.find(line.owner)
        line.cloud.start(off, time.time() + 1800)
    capfd.readouterr()
    line.type(run)
    printed = capfd.readouterr()

    assert 1 == line.cloud.started
    (fresh,) = line.cloud.created[1:]
    assert created == [disk.path.name] != [fresh]
    assert {} == line.boxes()
    assert [step] == first_steps(printed.out)
    assert "only the disk of" in printed.err
    first, last = sorted((line.project.root / ".onebox/jobs").glob("*/log"))
    assert "from 0\n" == first.read_text()[:7]
    receipt = json.loads(last.with_name("receipt.json").read_bytes())
    assert fresh == receipt["box"]["id"]


def test_unreadable_disk_stops_the_next_run(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the disk cannot be read, it stays, and the machine is powered off again."""
    disk = preempt_detached_job(line)
    line.project.write("job.sh", JOB)
    monkeypatch.setattr(fetch_preempted, "pull_last_checkpoints", lambda *about: False)
    with pytest.raises(OutputsHeld, match="could be fetched; it is kept"):
        line.type(run)

    assert {disk.path.name: "stopped"} == line.boxes()
    monkeypatch.undo()
    line.type(run)
    assert {} == line.boxes()


def test_outputs_of_a_job_that_ended_before_the_preemption_are_fetched(
    line: Line,
) -> None:
    """They are fetched from the disk before another run."""
    disk = preempt_detached_job(line, "mkdir results; echo 1 >results/one")
    line.project.write("job.sh", "mkdir -p results; echo 2 >results/two")
    line.type(run)

    assert disk.path.name not in line.boxes()
    assert {} == line.boxes()
    assert "1\n" == line.project.read("results/one")
    assert "2\n" == line.project.read("results/two")


def preempt_detached_job(line: Line, job: str = "") -> Layout:
    """Return the disk of a box that was preempted while no client was connected."""
    line.project.write("cuts", "9")
    if job:
        line.project.write("job.sh", job)
    line.type(run, detach=True)
    (name,) = line.boxes()
    box = Layout(line.project.home / "local/boxes" / name)
    wait_until(lambda: (box.home / "work/ckpt/step").exists() or bool(job))
    wait_until(lambda: not job or bool(list(box.agent.glob("jobs/*/exit*"))))
    line.project.cut_power()
    assert {name: "stopped"} == line.boxes()
    return box


def test_end_of_another_command_does_not_release_the_disk(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the end of the same run makes its disk worthless."""
    perform, pushes = push.perform, []

    def pushed(context: BoxContext) -> None:
        pushes.append(context)
        if len(pushes) == 2:
            raise Interrupted(signal.SIGINT)
        perform(context)

    monkeypatch.setattr(push, "perform", pushed)
    with pytest.raises(Interrupted):
        line.run(1)
    (disk,) = [box for box, state in line.boxes().items() if state == "stopped"]
    real = run.perform
    monkeypatch.setattr(run, "perform", lambda context, argv: real(context, ["true"]))
    with pytest.raises(OneboxError):
        line.type(run)

    assert "stopped" == line.boxes()[disk]
