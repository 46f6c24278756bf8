"""A box that has come up is one only once all that it needs has been done there."""

from __future__ import annotations

import signal
import subprocess
from dataclasses import replace
from typing import Any

import pytest

from onebox.errors import BoxFailed
from onebox.providers.base import Box
from onebox.providers.local import Local
from onebox.providers.localbox import processes
from onebox.stages import arrival, provision
from onebox.transport.link import Link

from ..conftest import send
from .test_disks import Line, line

__all__ = ["line"]


def test_an_errand_without_an_answer(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A box that falls silent over what its provider wants done there goes again.
    """

    def freeze(box: Box) -> bytes:
        send(signal.SIGSTOP, processes.marked(box.id))
        return b"pass"

    def delete(box: Box) -> None:
        send(signal.SIGCONT, processes.marked(box.id))
        Local.delete(line.cloud, box)

    monkeypatch.setattr(arrival, "ERRAND_SECONDS", 2.0)
    monkeypatch.setattr(line.cloud, "delete", delete)
    monkeypatch.setattr(line.cloud, "errand", freeze)
    with pytest.raises(BoxFailed, match="end itself: no answer within 2 s"):
        line.type(provision)

    assert {} == line.boxes()


def test_another_command_ends_the_connection(
    line: Line, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """
    A box whose host key is being changed is kept when its connection is ended.
    """
    create, ask = line.cloud.create, Link.ask

    def end_it(self: Link, op: str, **what: Any) -> dict[str, Any]:
        if op == "hostkey_new":
            monkeypatch.setattr(Link, "ask", ask)
            (config,) = line.project.home.glob("state/projects/*/main/ssh/config")
            (box,) = line.project.boxes()
            subprocess.run(["ssh", "-F", config, "-O", "exit", box], check=True)
            self.process.wait()
        return ask(self, op, **what)

    monkeypatch.setattr(Link, "ask", end_it)
    monkeypatch.setattr(
        line.cloud, "create", lambda request: replace(create(request), exposed=True)
    )
    line.type(provision)

    assert ["running"] == list(line.boxes().values())
    # A local box has no other key to give itself.
    assert "keeps its first host key" in capfd.readouterr().err
