"""Programs and settings of other users, and those of a fresh clone, are not run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Done, Project

OTHER = 65534
only_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can give files to another user"
)


def give(path: Path) -> None:
    """Make another user the owner of a file."""
    os.chown(path, OTHER, OTHER, follow_symlinks=False)


def onebox(
    project: Project, *words: str, cwd: Path | None = None, user: int | None = None
) -> Done:
    """
    Run an `onebox` line.

    The installed program is run, because `python -m` would import `invoke` from the
    working folder.
    """
    program = Path(sys.executable).with_name("onebox")
    if not program.exists():
        pytest.skip("the program is not installed beside Python")
    try:
        done = subprocess.run(
            [str(program), *words],
            cwd=cwd or project.root,
            env=project.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            preexec_fn=None if user is None else lambda: os.setuid(user),
        )
    except PermissionError:
        pytest.skip("another user cannot run this installation")
    return Done(done.returncode, done.stdout, done.stderr)


def harmful(project: Project, name: str, first: str = "") -> Path:
    """Write a module that leaves a file when it is run; return that file's path."""
    harm = project.root / "harm"
    project.write(name, f"{first}open({str(harm)!r}, 'w')\n")
    return harm


@only_root
def test_no_program_of_another_user_is_run(project: Project) -> None:
    """A tasks.py above the folder, as in /tmp, or at a completion, may be anybody's."""
    below = project.root / "below"
    below.mkdir()
    harm = harmful(project, "tasks.py", "from onebox import *\n")
    give(project.root / "tasks.py")

    done = project.onebox("status", cwd=below)
    assert f"the project in {project.root} belongs to another user" in done.err
    assert "init" in project.onebox("--complete", "--", "onebox in").out
    # A folder that is no package does not lead Invoke to the tasks.py above.
    (below / "tasks").mkdir()
    (below / "tasks" / "mine.py").write_text("import onebox\n")
    project.onebox("status", cwd=below)

    assert not harm.exists()
    project.onebox("status")
    assert harm.exists()
    assert "" == project.onebox("--complete", "--", "onebox in", cwd=below).err


@only_root
@pytest.mark.parametrize("name", ["invoke.py", "invoke.yaml", "invoke.json"])
@pytest.mark.parametrize("is_project", [True, False])
def test_configuration_of_another_user_is_not_read(
    project: Project, name: str, is_project: bool
) -> None:
    """It is named in one line, in a project and where there is none, as in /tmp."""
    text = 'onebox: {name: "theirs"}\n'
    if name == "invoke.json":
        text = '{"onebox": {"name": "theirs"}}'
    harm = harmful(project, name) if name == "invoke.py" else None
    if harm is None:
        project.write(name, text)
    give(project.root / name)
    if not is_project:
        for own in ("tasks.py", "onebox.toml"):
            (project.root / own).unlink()

    done = onebox(project, "status")
    completed = onebox(project, "--complete", "--", "onebox in")

    assert "/theirs" not in done.out
    assert 1 == done.err.count(f"{project.root / name} belongs to another user")
    assert "" == completed.err
    assert harm is None or not harm.exists()


@only_root
@pytest.mark.parametrize("name", ["onebox.toml", "tasks.py"])
def test_project_of_another_user_in_a_folder_open_to_all_is_refused(
    project: Project, name: str
) -> None:
    """In /tmp itself, the files that anyone could put there are not used."""
    harm = harmful(project, "tasks.py", "from onebox import *\n")
    give(project.root / name)
    if name == "onebox.toml":
        (project.root / "tasks.py").unlink()
    project.root.chmod(0o1777)
    done = project.onebox("status")

    assert 78 == done.code
    assert f"every user can write to {project.root}" in done.err
    assert not harm.exists()


@only_root
def test_settings_of_another_user_in_a_folder_open_to_all_are_refused(
    project: Project,
) -> None:
    """`inv` too refuses an onebox.toml that another user put beside one's tasks.py."""
    give(project.root / "onebox.toml")
    assert 0 == project.inv("status").code
    project.root.chmod(0o1777)
    done = project.inv("status")

    assert 78 == done.code
    assert "onebox.toml: another user put it here" in done.err


@only_root
def test_onebox_folder_of_another_user_is_refused(project: Project) -> None:
    """Another user could change the receipts and checkpoints of the jobs."""
    (project.root / ".onebox").mkdir()
    give(project.root / ".onebox")
    for words in (("provision",), ("history",)):
        done = project.onebox(*words)
        assert 78 == done.code
        assert f"{project.root / '.onebox'} belongs to another user" in done.err
        assert f"next: chown -R root {project.root / '.onebox'}, if you" in done.err
    assert [] == project.boxes()


@only_root
def test_id_of_a_project_that_another_user_owns_is_not_replaced(
    project: Project,
) -> None:
    """After a move and a `chown -R`, the box is found again, not taken as gone."""
    assert 0 == project.onebox("provision").code
    boxes = project.boxes()
    moved, copy = project.root.with_name("moved"), project.root.with_name("copy")
    project.root.rename(moved)
    shutil.copytree(moved, copy)
    mine = [moved / ".onebox", *(moved / ".onebox").rglob("*")]
    assert 0 == project.onebox("status", cwd=moved).code
    for path in mine:
        give(path)
    file = moved / ".onebox/project.json"
    for task in ("teardown", "status", "history", "plan", "provision"):
        done = project.onebox(task, cwd=moved)
        assert 78 == done.code, (task, done)
        assert f"{file} belongs to another user" in done.err
        assert f"next: chown -R root {file.parent}, if you trust it" in done.err
    # Its id is taken, also for a copy and for a new project in the old place.
    assert "no box is up" in project.onebox("status", cwd=copy).out
    project.root.mkdir()
    (project.root / "onebox.toml").write_bytes((moved / "onebox.toml").read_bytes())
    assert "no box is up" in project.onebox("status").out
    assert boxes == project.boxes()

    for path in mine:
        os.chown(path, 0, 0)
    assert 0 == project.onebox("teardown", cwd=moved).code
    assert [] == project.boxes()


@only_root
def test_files_of_root_are_used_by_other_users(project: Project) -> None:
    """Root could change any program, so root's files are no other user's."""
    for place in (project.home, project.root):
        place.chmod(0o755)
    harmless = "from onebox import *\nprint('tasks are read')\n"
    project.write("tasks.py", harmless).chmod(0o644)
    done = onebox(project, "--list", user=OTHER)

    assert "tasks are read" in done.out


def test_tab_runs_the_tasks_of_used_projects_only(project: Project) -> None:
    """In a fresh clone, a Tab offers onebox's own tasks, and runs nothing."""
    harm = harmful(
        project,
        "tasks.py",
        "from onebox import *\nfrom invoke import task\n\n\n"
        "@task\ndef census(c):\n    pass\n\n\n",
    )
    settings = harmful(project, "invoke.py")
    line = ("--complete", "--", "onebox ")

    first = onebox(project, *line)
    assert not harm.exists()
    assert "run\t" in first.out
    assert "census" not in first.out
    assert 0 == onebox(project, "status").code
    assert settings.exists()
    harm.unlink()
    (project.root / "invoke.py").unlink()
    assert "census" in onebox(project, *line).out
    harm.unlink()
    copy = project.root.with_name("copy")
    project.root.rename(project.root.with_name("old"))
    copy.mkdir()
    for name in ("tasks.py", "onebox.toml"):
        (copy / name).write_bytes((project.root.with_name("old") / name).read_bytes())
    copy.rename(project.root)
    assert "census" not in onebox(project, *line).out
    assert not harm.exists()


def test_tab_never_runs_invoke_py(project: Project) -> None:
    """Invoke's own configuration may be a program; a Tab does without it."""
    assert 0 == onebox(project, "status").code
    harm = harmful(project, "invoke.py")

    assert "run\t" in onebox(project, "--complete", "--", "onebox ").out
    assert not harm.exists()
