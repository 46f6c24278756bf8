"""A crash of a spot box is not mistaken for a job that shuts its box down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from onebox.context import BoxContext
from onebox.errors import Lost
from onebox.providers.values import Box
from onebox.stages import fetch, held_outputs, run
from onebox.store.paths import local_root
from tests.conftest import Project
from tests.stages.test_preempted_disk import Line, Paid
from tests.stages.test_preemption_recovery import JOB, TOML, first_steps


class ReportsShutdown(Paid):
    """A cloud that reports a crash as a shutdown from inside, as EC2 does."""

    def get(self, box: str, place: str = "") -> Box | None:
        """Return the box, with a shutdown as the reason if it is off."""
        found = super().get(box, place)
        return found and _reported(found)

    def find(
        self, owner: str, also: Sequence[str] = (), *, everywhere: bool = False
    ) -> Sequence[Box]:
        """Return the boxes, with a shutdown as the reason if they are off."""
        found = super().find(owner, also, everywhere=everywhere)
        return [_reported(box) for box in found]


def _reported(box: Box) -> Box:
    crashed = box.state in ("stopping", "stopped") and not box.why
    return replace(box, why="poweroff") if crashed else box


@pytest.fixture
def line(project: Project, monkeypatch: pytest.MonkeyPatch) -> Line:
    """A spot job with checkpoints, on a cloud that reports crashes as shutdowns."""
    for name in ("ONEBOX_STATE", "ONEBOX_IDENTITY", "ONEBOX_LOCAL_ROOT"):
        monkeypatch.delenv(name, raising=False)
    project.write("onebox.toml", TOML.format(retries=2, rehearse=""))
    made = Line(project)
    made.cloud = ReportsShutdown(local_root(project.environ))
    return made


def test_crashed_box_is_replaced_though_its_cloud_reports_a_shutdown(
    line: Line, capfd: pytest.CaptureFixture[str]
) -> None:
    """
    A box that goes off without its job's exit record has crashed: the job resumes.
    """
    end = "end=9999; [ $(wc -l < ckpt/tries) -gt $(cat cuts) ] && end=$((n+4))\nwhile"
    job = JOB.replace("-lt 10", "-lt $end").replace(
        "while", f"echo x >> ckpt/tries\n{end}"
    )
    line.project.write("job.sh", job)
    line.run(1)
    printed = capfd.readouterr()

    first, second = first_steps(printed.out)
    assert 0 == first < second
    assert "the box crashed" in printed.err
    assert {} == line.boxes()


@pytest.mark.parametrize("trap", ["", "trap 'exit 0' TERM; "])
def test_job_that_powers_its_box_off_is_not_run_again(
    line: Line, capfd: pytest.CaptureFixture[str], trap: str
) -> None:
    """The record of a job that is shut down is fetched before the box is off."""
    job = f"{trap}echo from 0; mkdir -p results; echo 1 > results/x; "
    line.project.write("job.sh", job + "sudo poweroff; sleep 600 & wait")
    with pytest.raises(Lost, match="is stopped: poweroff"):
        line.type(run)
    printed = capfd.readouterr()

    assert [0] == first_steps(printed.out)
    assert "the box was powered off" in printed.err
    assert "crashed" not in printed.err
    line.type(fetch, rescue=True)
    assert "1\n" == line.project.read("results/x")


def test_job_that_ends_and_powers_its_box_off_is_not_run_again(
    line: Line, capfd: pytest.CaptureFixture[str]
) -> None:
    """A job that has succeeded does not run again when its box goes off."""
    job = "echo from 0; mkdir -p results; echo 1 > results/x; sudo poweroff\n"
    line.project.write("job.sh", job)
    try:
        line.type(run)
    except Lost:
        # Its box was off before all was here.
        line.type(fetch, rescue=True)
    printed = capfd.readouterr()

    assert [0] == first_steps(printed.out)
    assert "1\n" == line.project.read("results/x")


def test_a_box_that_powers_itself_off_during_the_last_check_is_removed(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its outputs are here, and the record replaces the missing answer."""
    line.project.write("job.sh", "mkdir -p results; echo 1 > results/x\n")
    check = held_outputs.check_box

    def power_off_and_check(
        context: BoxContext, box: Box, doing: Callable[[str], None]
    ) -> None:
        line.cloud.stop(box)
        check(context, box, doing)

    monkeypatch.setattr(held_outputs, "check_box", power_off_and_check)
    line.type(run)
    assert "1\n" == line.project.read("results/x")
    assert {} == line.boxes()
