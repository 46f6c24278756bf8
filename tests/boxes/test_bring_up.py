"""A new box counts as ready only after all steps of its preparation."""

from __future__ import annotations

import json
import signal
import subprocess
from dataclasses import replace
from typing import Any

import pytest

from onebox.boxes import bring_up
from onebox.errors import BoxFailed
from onebox.providers.local import box_processes
from onebox.providers.local.provider import Local
from onebox.providers.values import Box
from onebox.remote.channel import AgentChannel
from onebox.stages import provision
from onebox.store.paths import local_root
from tests.conftest import send
from tests.stages.test_preempted_disk import Line, Paid, line

__all__ = ["line"]


def test_a_box_is_removed_if_its_post_boot_script_does_not_answer(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A box that does not answer during its post-boot script is removed.
    """

    def freeze(box: Box) -> bytes:
        send(signal.SIGSTOP, box_processes.marked(box.id))
        return b"pass"

    def delete(box: Box) -> None:
        send(signal.SIGCONT, box_processes.marked(box.id))
        Local.delete(line.cloud, box)

    monkeypatch.setattr(bring_up, "POST_BOOT_SECONDS", 2.0)
    monkeypatch.setattr(line.cloud, "delete", delete)
    monkeypatch.setattr(line.cloud, "post_boot_script", freeze)
    with pytest.raises(
        BoxFailed, match="set up to remove itself at its deadline: no answer within 2 s"
    ):
        line.type(provision)

    assert {} == line.boxes()


class ForgetsDeadline(Paid):
    """A cloud that reports a new deadline but does not send it to the box."""

    def start(self, box: Box, deadline: float) -> Box:
        """Start the box with its old deadline."""
        return replace(super().start(box, box.deadline), deadline=deadline)


def test_start_reports_the_boxs_own_deadline_if_it_differs(
    line: Line, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """After a start, the deadline of the box itself is reported."""
    line.type(provision)
    line.project.cut_power()
    line.cloud = ForgetsDeadline(local_root(line.project.environ))
    line.cloud.disk_only = False
    monkeypatch.setattr(bring_up, "DEADLINE_SECONDS", 0.0)
    (box,) = line.boxes()
    text = line.project.read("onebox.toml")
    text = text.replace("[limits]", "[limits]\nmax_hours = 20")
    line.project.write("onebox.toml", text)
    session = line.type(provision)

    assert f"{box} did not take over its new deadline" in capfd.readouterr().err
    own = json.loads(
        next(line.project.home.glob("local/boxes/*/record.json")).read_text()
    )
    assert session.store.record.deadline == own["deadline"]


def test_start_with_a_new_deadline_prints_no_warning(
    line: Line, capfd: pytest.CaptureFixture[str]
) -> None:
    """If the box knows its new deadline, there is no warning."""
    line.cloud.disk_only = False
    line.type(provision)
    line.project.cut_power()
    text = line.project.read("onebox.toml")
    text = text.replace("[limits]", "[limits]\nmax_hours = 20")
    line.project.write("onebox.toml", text)
    line.type(provision)

    assert "new deadline" not in capfd.readouterr().err


def test_box_is_kept_if_another_command_closes_the_connection(
    line: Line, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A box whose host key is being replaced is kept if its connection is closed."""
    create, ask = line.cloud.create, AgentChannel.request

    def end_it(self: AgentChannel, op: str, **what: Any) -> dict[str, Any]:
        if op == "hostkey_new":
            monkeypatch.setattr(AgentChannel, "request", ask)
            (config,) = line.project.home.glob("state/projects/*/main/ssh/config")
            (box,) = line.project.boxes()
            subprocess.run(["ssh", "-F", config, "-O", "exit", box], check=True)
            self.process.wait()
        return ask(self, op, **what)

    monkeypatch.setattr(AgentChannel, "request", end_it)
    monkeypatch.setattr(
        line.cloud,
        "create",
        lambda request: replace(create(request), bootstrap_key=True),
    )
    line.type(provision)

    assert ["running"] == list(line.boxes().values())
    # A local box has no other key to give itself.
    assert "keeps its first host key" in capfd.readouterr().err
