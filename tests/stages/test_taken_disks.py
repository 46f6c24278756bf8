"""The disk of a box that the cloud has taken stays until the job itself has ended."""

from __future__ import annotations

import shutil
import signal

import pytest

from onebox.errors import OneboxError
from onebox.providers.base import Box, Request
from onebox.session import Session
from onebox.signals import Interrupted
from onebox.stages import push, run

from .test_disks import Line, line

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


def test_another_command_is_another_run(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    That another command has ended makes nothing of the first one's worthless.
    """
    perform, pushes = push.perform, []

    def pushed(session: Session) -> None:
        pushes.append(session)
        if len(pushes) == 2:
            raise Interrupted(signal.SIGINT)
        perform(session)

    monkeypatch.setattr(push, "perform", pushed)
    with pytest.raises(Interrupted):
        line.run(1)
    (disk,) = [box for box, state in line.boxes().items() if state == "stopped"]
    real = run.perform
    monkeypatch.setattr(run, "perform", lambda session, argv: real(session, ["true"]))
    with pytest.raises(OneboxError):
        line.type(run)

    assert "stopped" == line.boxes()[disk]
