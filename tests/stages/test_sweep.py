"""`inv sweep`: everything of this owner is seen, and only what has expired goes."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from onebox.providers.local.provider import Local
from onebox.stages import provision, sweep
from tests.conftest import Project
from tests.stages.test_preempted_disk import Line, line

__all__ = ["line"]


def age(project: Project, box: str, hours: float) -> None:
    """Have the provider say that a box's deadline was so long ago."""
    path = Path(project.home / "local" / "boxes" / box / "record.json")
    record = json.loads(path.read_bytes())
    record["deadline"] = record["tags"]["expires"] = time.time() - hours * 3600
    path.write_text(json.dumps(record))


def another(project: Project, name: str) -> Path:
    """Return the folder of another project of the same user's."""
    folder = project.home / name
    folder.mkdir()
    (folder / "tasks.py").write_text("from onebox.tasks import *\n")
    return folder


def test_removes_the_expired(project: Project) -> None:
    """
    A box long over its deadline is shown first, and removed only with --yes.
    """
    project.inv("provision")
    (box,) = project.boxes()
    age(project, box, 2)

    shown = project.inv("sweep")
    assert 0 == shown.code
    assert "1 box expired" in shown.err
    assert [box] == project.boxes()

    swept = project.inv("sweep", "--yes")
    assert 0 == swept.code
    assert [] == project.boxes()
    assert [] == project.processes()


def test_waits_an_hour_after_the_deadline(project: Project) -> None:
    """
    Right after its deadline a box may still be saving: it is left alone.
    """
    project.inv("provision")
    (box,) = project.boxes()
    age(project, box, 0.5)

    assert "nothing has expired" in project.inv("sweep", "--yes").err
    assert [box] == project.boxes()


def test_keeps_a_disk_for_a_week(project: Project) -> None:
    """
    A box that is off may hold results: it goes a week after its deadline only.
    """
    project.inv("provision")
    (box,) = project.boxes()
    project.cut_power()
    assert "stopped" in project.inv("status").out
    age(project, box, 24)
    shown = project.inv("sweep", "--yes")
    assert "disk kept until" in shown.out
    assert [box] == project.boxes()

    age(project, box, 24 * 7 + 1)
    project.inv("sweep", "--yes")
    assert [] == project.boxes()


def test_spares_a_live_job(project: Project) -> None:
    """
    A box on which a job still runs is not removed, whatever its deadline says.
    """
    project.inv("run", "--detach", "--", "sleep", "300")
    (box,) = project.boxes()
    age(project, box, 5)

    swept = project.inv("sweep", "--yes")
    assert "but a job runs" in swept.out
    assert [box] == project.boxes()

    project.inv("cancel")
    assert 0 == project.inv("sweep", "--yes").code
    assert [] == project.boxes()


def test_heeds_the_clock_of_the_box(
    line: Line, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """
    A box that answers is over its deadline only if its own clock says so, too.
    """
    session = line.type(provision)
    monkeypatch.setattr(Local, "now", lambda self: time.time() + 49 * 3600)
    sweep.perform(session, yes=True)

    assert ["running"] == list(line.boxes().values())
    assert "not expired" in capfd.readouterr().out


def test_another_sweep_meanwhile(project: Project, tmp_path: Path) -> None:
    """
    A sweep that asks a box for its job is not disturbed by another that does, too.
    """
    (tmp_path / "sitecustomize.py").write_text(
        "import subprocess, sys\n"
        "from onebox.remote.connection import SSHConnection\n"
        "converse = SSHConnection._start_agent\n"
        "def later(self, *words):\n"
        "    other = [sys.executable, '-E', '-m', 'invoke', 'sweep']\n"
        "    subprocess.run(other, check=True)\n"
        "    return converse(self, *words)\n"
        "SSHConnection._start_agent = later\n"
    )
    project.inv("run", "--detach", "--", "sleep", "300")
    (box,) = project.boxes()
    age(project, box, 5)

    swept = project.inv("sweep", "--yes", env={"PYTHONPATH": str(tmp_path)})
    assert 2 == swept.out.count("but a job runs"), swept.err
    assert [box] == project.boxes()
    (folder,) = project.home.glob("state/sweep")
    assert [] == list(folder.iterdir())


def test_sees_what_another_project_made(project: Project) -> None:
    """
    It is this owner's boxes everywhere, not those of one project.
    """
    project.inv("provision")
    (box,) = project.boxes()
    elsewhere = another(project, "elsewhere")

    assert box in project.inv("sweep", cwd=elsewhere).out


def test_print_cron(project: Project) -> None:
    """
    The line for crontab names this project, and cron's own percent sign is escaped.
    """
    odd = another(project, "100% odd")
    line = project.inv("sweep", "--print-cron", cwd=odd).out.strip()

    assert line.startswith("17 * * * * cd ")
    assert r"100\% odd" in line
    assert "sweep --yes" in line


def test_a_policy_is_a_clouds(project: Project) -> None:
    """
    The local box needs no permissions, and says so in one line.
    """
    refused = project.inv("doctor", "--policy")

    assert 64 == refused.code
    assert "provider local has no policy to print" in refused.err
