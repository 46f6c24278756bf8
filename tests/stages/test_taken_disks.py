"""The disk of a box that the cloud has taken stays until the job itself has ended."""

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
from onebox.stages import push, run, salvage

from ..providers.sshbox import wait_until
from .test_disks import Line, line
from .test_recover import JOB, starts

__all__ = ["line"]


def test_push_fails_on_the_next_box(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    What fails on the next box takes that one away, and not the disk of the first.
    """
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
def test_the_next_run_is_not_on_the_machine_that_reads_the_disk(
    line: Line, capfd: pytest.CaptureFixture[str], found: str
) -> None:
    """
    A disk is read and goes; the job goes on from it on a box of the size asked for.

    So it is where a smaller machine shows only once it has started, and where it
    is up already, because the command that had started it was killed.
    """
    line.cloud.disk_only = found == "a disk"
    disk = detached_and_taken(line)
    step = int((disk.home / "work/ckpt/step").read_text())
    created = list(line.cloud.created)
    line.project.write("cuts", "0")
    line.project.write("job.sh", JOB)
    if found == "on":
        (off,) = line.cloud.find(line.owner)
        line.cloud.start(off, time.time() + 1800)
    capfd.readouterr()
    line.type(run)
    said = capfd.readouterr()

    assert 1 == line.cloud.started
    (fresh,) = line.cloud.created[1:]
    assert created == [disk.path.name] != [fresh]
    assert {} == line.boxes()
    assert [step] == starts(said.out)
    assert "only the disk of" in said.err
    first, last = sorted((line.project.root / ".onebox/jobs").glob("*/log"))
    assert "from 0\n" == first.read_text()[:7]
    paper = json.loads(last.with_name("receipt.json").read_bytes())
    assert fresh == paper["box"]["id"]


def test_a_disk_that_cannot_be_read_keeps_the_next_run_away(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    What could not be brought here holds the disk, and the machine goes off again.
    """
    disk = detached_and_taken(line)
    line.project.write("job.sh", JOB)
    monkeypatch.setattr(salvage, "last_pull", lambda *about: False)
    with pytest.raises(OutputsHeld, match="could be fetched; it is kept"):
        line.type(run)

    assert {disk.path.name: "stopped"} == line.boxes()
    monkeypatch.undo()
    line.type(run)
    assert {} == line.boxes()


def test_a_job_that_ended_on_the_disk_leaves_its_outputs(line: Line) -> None:
    """
    Outputs of a job that had ended before its box was taken are fetched first.
    """
    disk = detached_and_taken(line, "mkdir results; echo 1 >results/one")
    line.project.write("job.sh", "mkdir -p results; echo 2 >results/two")
    line.type(run)

    assert disk.path.name not in line.boxes()
    assert {} == line.boxes()
    assert "1\n" == line.project.read("results/one")
    assert "2\n" == line.project.read("results/two")


def detached_and_taken(line: Line, job: str = "") -> Layout:
    """Return the disk of a box that was taken while nobody was attached."""
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


def test_another_command_is_another_run(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    That another command has ended makes nothing of the first one's worthless.
    """
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
