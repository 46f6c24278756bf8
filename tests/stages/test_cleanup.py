"""`inv cleanup`: everything of this owner is seen, and only what has expired goes."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from onebox.providers.local.provider import Local
from onebox.stages import cleanup, provision
from tests.conftest import Project
from tests.stages.test_preempted_disk import Line, line

__all__ = ["line"]


def expire(project: Project, box: str, hours: float) -> None:
    """Make the provider report a deadline that was *hours* ago."""
    path = Path(project.home / "local" / "boxes" / box / "record.json")
    record = json.loads(path.read_bytes())
    record["deadline"] = record["tags"]["deadline"] = time.time() - hours * 3600
    path.write_text(json.dumps(record))


def other_project(project: Project, name: str) -> Path:
    """Return the folder of another project of the same user."""
    folder = project.home / name
    folder.mkdir()
    (folder / "tasks.py").write_text("from onebox.tasks import *\n")
    return folder


def test_cleanup_deletes_an_expired_box_only_with_yes(project: Project) -> None:
    """Without --yes an expired box is only listed."""
    project.inv("provision")
    (box,) = project.boxes()
    expire(project, box, 2)

    shown = project.inv("cleanup")
    assert 0 == shown.code
    assert "1 box expired" in shown.err
    assert [box] == project.boxes()

    cleaned = project.inv("cleanup", "--yes")
    assert 0 == cleaned.code
    assert [] == project.boxes()
    assert [] == project.processes()


def test_cleanup_keeps_a_box_for_an_hour_after_its_deadline(project: Project) -> None:
    """Right after its deadline a box may still be saving files."""
    project.inv("provision")
    (box,) = project.boxes()
    expire(project, box, 0.5)

    assert "nothing has expired" in project.inv("cleanup", "--yes").err
    assert [box] == project.boxes()


def test_cleanup_keeps_a_stopped_box_for_a_week(project: Project) -> None:
    """The disk of a stopped box may hold results."""
    project.inv("provision")
    (box,) = project.boxes()
    project.cut_power()
    assert "stopped" in project.inv("status").out
    expire(project, box, 24)
    shown = project.inv("cleanup", "--yes")
    assert "disk kept until" in shown.out
    assert [box] == project.boxes()

    expire(project, box, 24 * 7 + 1)
    project.inv("cleanup", "--yes")
    assert [] == project.boxes()


def test_cleanup_keeps_a_box_with_a_running_job(project: Project) -> None:
    """A box with a running job is kept, whatever its deadline is."""
    project.inv("run", "--detach", "--", "sleep", "300")
    (box,) = project.boxes()
    expire(project, box, 5)

    cleaned = project.inv("cleanup", "--yes")
    assert "but a job runs" in cleaned.out
    assert [box] == project.boxes()

    project.inv("cancel")
    assert 0 == project.inv("cleanup", "--yes").code
    assert [] == project.boxes()


def test_cleanup_uses_the_clock_of_a_box_that_answers(
    line: Line, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Such a box has expired only if its own clock agrees."""
    session = line.type(provision)
    monkeypatch.setattr(Local, "now", lambda self: time.time() + 49 * 3600)
    cleanup.perform(session, yes=True)

    assert ["running"] == list(line.boxes().values())
    assert "not expired" in capfd.readouterr().out


def test_concurrent_cleanups_do_not_disturb_each_other(
    project: Project, tmp_path: Path
) -> None:
    """Two cleanups can ask one box for its job at the same time."""
    (tmp_path / "sitecustomize.py").write_text(
        "import subprocess, sys\n"
        "from onebox.remote.connection import SSHConnection\n"
        "converse = SSHConnection._start_agent\n"
        "def later(self, *words):\n"
        "    other = [sys.executable, '-E', '-m', 'invoke', 'cleanup']\n"
        "    subprocess.run(other, check=True)\n"
        "    return converse(self, *words)\n"
        "SSHConnection._start_agent = later\n"
    )
    project.inv("run", "--detach", "--", "sleep", "300")
    (box,) = project.boxes()
    expire(project, box, 5)

    cleaned = project.inv("cleanup", "--yes", env={"PYTHONPATH": str(tmp_path)})
    assert 2 == cleaned.out.count("but a job runs"), cleaned.err
    assert [box] == project.boxes()
    (folder,) = project.home.glob("state/cleanup")
    assert [] == list(folder.iterdir())


def test_the_earlier_name_sweep_works_and_says_so(project: Project) -> None:
    """One line names the command of today; `inv cleanup` does not print it."""
    old, new = project.inv("sweep"), project.inv("cleanup")

    assert (0, new.out) == (old.code, old.out)
    assert "sweep is an earlier name of: inv cleanup" in old.err
    assert "earlier name" not in new.err


def test_cleanup_lists_boxes_of_all_projects_of_the_owner(project: Project) -> None:
    """Boxes of other projects are listed too."""
    project.inv("provision")
    (box,) = project.boxes()
    elsewhere = other_project(project, "elsewhere")

    assert box in project.inv("cleanup", cwd=elsewhere).out


def test_print_cron_names_the_project_and_escapes_percent_signs(
    project: Project,
) -> None:
    """cron treats a percent sign as a newline."""
    odd = other_project(project, "100% odd")
    line = project.inv("cleanup", "--print-cron", cwd=odd).out.strip()

    assert line.startswith("17 * * * * cd ")
    assert r"100\% odd" in line
    assert "cleanup --yes" in line


def test_print_cron_names_the_task_as_its_namespace_does(project: Project) -> None:
    """A project may put the tasks into a collection of its own."""
    project.write(
        "tasks.py",
        "from invoke import Collection\nimport onebox\n"
        "ns = Collection(box=onebox.ns)\n",
    )
    assert " box.cleanup --yes" in project.inv("box.cleanup", "--print-cron").out


def test_local_provider_needs_no_policy(project: Project) -> None:
    """The local provider needs no permissions, and says so in one line."""
    refused = project.inv("doctor", "--policy")

    assert 64 == refused.code
    assert "provider local has no policy to print" in refused.err
