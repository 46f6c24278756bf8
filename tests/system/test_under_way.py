"""`status` and `cleanup` name a box that another command creates or removes."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import Project

# A module and a function that is called before a box exists, or after it is gone.
CREATE = ("onebox.providers.local.provider", "Local.create")
DELETE = ("onebox.boxes.delete", "wait_until_gone")


def paused_at(
    project: Project, folder: Path, where: tuple[str, str], *words: str
) -> subprocess.Popen[bytes]:
    """Start a line, and wait until it waits in a function for the file `go`."""
    module, name = where
    (folder / "sitecustomize.py").write_text(
        "import os, time\n"
        f"import {module} as there\n"
        f"real = there.{name}\n"
        "def function(*here):\n"
        f"    open({str(folder / 'there')!r}, 'w').close()\n"
        f"    while not os.path.exists({str(folder / 'go')!r}):\n"
        "        time.sleep(0.05)\n"
        "    return real(*here)\n"
        f"there.{name} = function\n"
    )
    project.environ["PYTHONPATH"] = str(folder)
    line = project.start(*words)
    del project.environ["PYTHONPATH"]
    while not (folder / "there").exists():
        assert line.poll() is None, project.err
        time.sleep(0.02)
    return line


@pytest.mark.parametrize(
    ("where", "action", "verb", "words"),
    [
        (CREATE, "create", "created", ("provision", "--name=b")),
        (DELETE, "delete", "removed", ("teardown", "--name=b")),
    ],
)
def test_box_that_another_command_makes_or_removes_is_named(
    project: Project,
    tmp_path: Path,
    where: tuple[str, str],
    action: str,
    verb: str,
    words: tuple[str, ...],
) -> None:
    """The process, its command line and the time are those of the other command."""
    if verb == "removed":
        project.inv("provision", "--name=b")
    line = paused_at(project, tmp_path, where, *words)
    text = f'is being {verb} by pid {line.pid} "inv {" ".join(words)}", since '
    status, cleanup = project.inv("status"), project.inv("cleanup")
    (one,) = json.loads(project.inv("status", "--json").out)["under_way"]
    listed = json.loads(project.inv("cleanup", "--json").out)["under_way"]
    other = project.inv("status", "--name=c")
    logs = project.inv("logs", "--name=b")
    top = project.inv("top", "--name=b")
    (tmp_path / "go").touch()

    assert 0 == line.wait(60), project.err
    assert status.out.startswith("census/b (ob-")
    assert text in status.out
    assert text in cleanup.out
    assert "you have no boxes" not in cleanup.out
    for out in (status.out, cleanup.out):
        clock = out.partition(", since ")[2][:5]
        assert time.strptime(clock, "%H:%M")
    assert "no box is up" in other.out
    assert (64, True) == (logs.code, text in logs.err)
    again = "next: wait, then run the same command again\n"
    assert (action == "create") == (again in top.err), top.err
    assert (action == "delete") == ("inv provision --name=b creates" in top.err)
    assert (line.pid, action, "b") == (one["pid"], one["action"], one["name"])
    assert [one] == listed
    after = project.inv("status").out
    assert "is being" not in after


def test_lines_beside_a_notebook_that_opens_lead_somewhere(
    project: Project, tmp_path: Path
) -> None:
    """No line names the job that there is not, or the command that has just failed."""
    assert 0 == project.inv("run").code
    where = ("onebox.stages.notebook", "_find_jupyter")
    line = paused_at(project, tmp_path, where, "notebook")
    (box,) = project.boxes()
    logs, run, push = (project.inv(words) for words in ("logs", "run", "push"))
    line.send_signal(signal.SIGINT)
    line.wait(60)

    ends = f"Ctrl-C in the terminal of the notebook (pid {line.pid}) ends it"
    assert (75, 75) == (run.code, push.code)
    assert "inv run --queue waits for it" in run.err
    for done in (run, push):
        assert ends in done.err
        assert "inv logs" not in done.err
        assert "inv cancel" not in done.err
    assert 64 == logs.code
    assert f"no job has run on census/main ({box}) yet" in logs.err
    assert f'pid {line.pid} "inv notebook" uses the box' in logs.err
    assert "next: inv run --queue starts a job when the notebook has ended" in logs.err
    assert "inv history lists the earlier jobs" in logs.err
    again = project.inv("logs")
    assert "next: inv run\n" in again.err


def test_ctrl_c_while_jupyter_is_installed_says_so(
    project: Project, tmp_path: Path
) -> None:
    """The stage before, the push, has succeeded, so it is not what was stopped."""
    line = paused_at(
        project, tmp_path, ("onebox.images.jupyter_env", "argv"), "notebook"
    )
    line.send_signal(signal.SIGINT)

    assert 130 == line.wait(60)
    assert "onebox: stopped while Jupyter was being installed\n" in project.err
    assert "next: the same command resumes" in project.err


def test_ctrl_c_during_a_removal_that_is_finished_is_no_failure(
    project: Project, tmp_path: Path
) -> None:
    """The signal is handled when nothing is left, and the line says what is gone."""
    project.inv("provision")
    (box,) = project.boxes()
    line = paused_at(project, tmp_path, DELETE, "teardown")
    line.send_signal(signal.SIGINT)
    (tmp_path / "go").touch()

    assert 130 == line.wait(60), project.err
    (row,) = [row for row in project.err.splitlines() if row.startswith("teardown ")]
    assert re.fullmatch(rf"teardown +(✓|ok) .* {box}: machine, disk: gone", row)
    assert "no box is left" in project.err
    assert [] == project.boxes()


def test_lock_of_an_ended_command_is_no_sign(project: Project, tmp_path: Path) -> None:
    """A killed command creates nothing any more, whatever its files say."""
    line = paused_at(project, tmp_path, CREATE, "provision")
    line.kill()
    line.wait(60)
    done = project.inv("status")

    assert "census: no box is up\n" == done.out


def test_use_without_a_box_is_named(project: Project, tmp_path: Path) -> None:
    """Before its create call, a command holds the lock: status names it, too."""
    where = ("onebox.stages.provision", "reason")
    line = paused_at(project, tmp_path, where, "provision")
    done = project.inv("status")
    (tmp_path / "go").touch()

    assert 0 == line.wait(60), project.err
    assert f'census/main is used by pid {line.pid} "inv provision", since ' in done.out
    assert "no box is listed yet" in done.out
