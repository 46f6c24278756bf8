"""The files that a cloned project brings reach no other project and no other file."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Project

MARK = ".onebox/project.json"
COMPLETION = ("--complete", "--", "onebox run --name=")


def hostile(project: Project, mark: bytes) -> None:
    """Give the project the mark that a clone may bring."""
    project.write(MARK, mark)


@pytest.mark.parametrize("line", [COMPLETION, ("status",)])
def test_mark_of_a_clone_names_no_file_to_write(
    project: Project, line: tuple[str, ...]
) -> None:
    """An id that is a path changes no file, at a command or a completion."""
    precious = project.home / "bashrc"
    precious.write_text("precious")
    place = os.path.relpath(precious, project.home / "state/roots")
    (project.home / "state/roots").mkdir(parents=True)
    hostile(project, json.dumps({"project": place, "path": "/nonexistent"}).encode())

    done = project.onebox(*line)

    assert "precious" == precious.read_text()
    assert (0, "") == (done.code, done.err)


@pytest.mark.parametrize(
    "mark",
    [
        b'{"project":"a\\u0000b","path":"/"}',
        b'{"project":"\\ud800","path":"/"}',
        b'{"project":["census-0123ab"],"path":"/"}',
        b"[" * 20_000,
        b'"' + b"a" * (1 << 20) + b'"',
        b"\xff",
        b"",
    ],
    ids=["zero", "surrogate", "list", "nested", "long", "no text", "empty"],
)
def test_mark_that_is_no_id_is_ignored(project: Project, mark: bytes) -> None:
    """Any content of the file leaves the project with the id of its folder."""
    hostile(project, mark)
    done = project.onebox("status")
    assert (0, "") == (done.code, done.err)
    assert "no box is up" in done.out
    assert (0, "") == (
        project.onebox(*COMPLETION).code,
        project.onebox(*COMPLETION).err,
    )


def test_pipes_and_devices_in_a_clone_do_not_block(project: Project) -> None:
    """A pipe without a writer, and a device without an end, are no project files."""
    (project.root / ".onebox").mkdir()
    os.mkfifo(project.root / MARK)
    (project.root / "tasks.py").unlink()
    os.mkfifo(project.root / "tasks.py")
    (project.root / "tasks").mkdir()
    (project.root / "tasks/__init__.py").symlink_to("/dev/zero")
    completed = bounded(project, *COMPLETION[:2], f"'{COMPLETION[2]}'")
    assert (0, "") == (completed.returncode, completed.stderr)
    done = bounded(project, "status")
    assert 78 == done.returncode
    assert f"{project.root / MARK} is neither a file nor a folder" in done.stderr


@pytest.mark.parametrize("name", ["invoke.json", "onebox.toml", ".gitignore"])
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_files_of_a_clone_that_do_not_end_are_not_read(
    project: Project, name: str, kind: str
) -> None:
    """A clone may bring a link to a device, and an archive may bring a pipe."""
    path = project.root / name
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    for task in ("status", "plan", "init"):
        done = bounded(project, task)
        assert done.returncode in (0, 64, 78), done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_files_of_onebox_that_do_not_end_are_refused(
    project: Project, kind: str
) -> None:
    """Nothing in `.onebox` is read if a part of it is no file and no folder."""
    path = project.write(".onebox/fetched/main/folders.jsonl", "")
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    for task in ("plan", "history"):
        done = bounded(project, task)
        assert 78 == done.returncode, done.stderr
        assert f"{path} is neither a file nor a folder" in done.stderr


def test_pipe_in_place_of_the_schema_is_not_read(project: Project) -> None:
    """`init` writes the schema in its place; `status` goes on without it."""
    (project.root / ".onebox").mkdir()
    os.mkfifo(project.root / ".onebox/schema.json")
    (project.root / "onebox.toml").unlink()

    assert bounded(project, "--complete", "--", "'onebox st'").returncode == 0
    for task in ("status", "plan", "init"):
        done = bounded(project, task)
        assert done.returncode in (0, 66, 78), done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["uv.lock", "pyproject.toml"])
def test_pipe_in_place_of_a_list_of_packages_is_not_read(
    project: Project, name: str
) -> None:
    """`plan` and `init` end, whichever of the two files is a pipe."""
    text = '[image]\nrequirements = "uv.lock"\n\n[run]\ncommand = "sh job.sh"\n'
    project.write("onebox.toml", text)
    for other in ("uv.lock", "pyproject.toml"):
        project.write(other, '[project]\nname = "x"\n')
    (project.root / name).unlink()
    os.mkfifo(project.root / name)
    for words in (("plan",), ("doctor",), ("init", "--force")):
        done = bounded(project, *words)
        assert done.returncode in (0, 66, 78), done.stderr
        assert "Traceback" not in done.stderr


def test_folders_that_a_clone_records_are_paths_of_outputs(project: Project) -> None:
    """Any other line of the file is ignored, and the project is pushed as usual."""
    lines = [
        "7",
        "null",
        '["x"]',
        '"../.."',
        '"."',
        '"/"',
        '""',
        "[" * 10_000,
        '"\\ud800"',
    ]
    project.write(".onebox/fetched/main/folders.jsonl", "\n".join(lines))
    done = project.onebox("plan")

    assert 0 == done.code, done.err
    assert "Traceback" not in done.err
    assert "outputs not pushed" not in done.out + done.err


def bounded(project: Project, *words: str) -> subprocess.CompletedProcess[str]:
    """Run an `onebox` line that may take 30 seconds and little memory."""
    limited = f"ulimit -v 3000000; exec {sys.executable} -m onebox {' '.join(words)}"
    return subprocess.run(
        ["sh", "-c", limited],
        cwd=project.root,
        env=project.environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_clone_with_the_id_of_another_project_has_no_box(
    project: Project, tmp_path: Path
) -> None:
    """The box and its names stay with the folder that the state directory records."""
    assert 0 == project.inv("provision", "--name=second").code
    ((box,),) = (project.boxes(),)
    mark = json.loads(project.read(MARK))
    clone = tmp_path / "clone"
    clone.mkdir()
    for name in ("onebox.toml", "tasks.py", "job.sh"):
        shutil.copy(project.root / name, clone / name)
    (clone / ".onebox").mkdir()
    (clone / MARK).write_text(json.dumps({**mark, "path": "/nonexistent"}))
    roots = project.home / "state/roots"
    before = [(path.name, path.read_bytes()) for path in roots.iterdir()]

    assert "second" not in project.onebox(*COMPLETION, cwd=clone).out
    assert "no box is up" in project.onebox("status", cwd=clone).out
    assert 0 == project.onebox("teardown", "--name=second", cwd=clone).code
    assert [box] == project.boxes()
    assert before == [(path.name, path.read_bytes()) for path in roots.iterdir()]
    (clone / "onebox.toml").write_text(f'project = "{mark["project"]}"\n')
    refused = project.onebox("teardown", "--name=second", cwd=clone)
    assert 78 == refused.code
    assert (
        f"onebox.toml:1: project: {mark['project']} is the project in {project.root}"
        in refused.err
    )
    assert "second" in project.onebox(*COMPLETION).out


def test_completion_writes_nothing(project: Project) -> None:
    """A Tab in a project that was moved leaves the recording to the next command."""
    assert 0 == project.inv("provision", "--name=second").code
    moved = project.root.with_name("survey")
    project.root.rename(moved)
    (root,) = (project.home / "state/roots").iterdir()
    before = root.read_bytes()

    assert "second" in project.onebox(*COMPLETION, cwd=moved).out
    assert before == root.read_bytes()
    assert 0 == project.onebox("status", cwd=moved).code
    assert os.fsencode(moved) == root.read_bytes()


@pytest.mark.fast
def test_only_names_are_offered(project: Project) -> None:
    """A folder or an image with a hostile name adds nothing to the line."""
    project.write("onebox.toml", 'project = "census"\n')
    for name in ("$(touch harm)", "Upper", "ok"):
        (project.home / "state/projects/census" / name).mkdir(parents=True)
    images = project.home / "state/image-names/local.json"
    images.parent.mkdir()
    images.write_text('["geo-2", "$(touch harm)", 3]')

    assert "--name=ok\t\n" == project.onebox(*COMPLETION).out
    found = project.onebox("--complete", "--", "onebox image --as=").out
    assert "--as=geo-2\t\n" == found


def test_box_is_not_created_through_a_link(project: Project, tmp_path: Path) -> None:
    """A `.onebox` that is a link gets no file of onebox at the place it leads to."""
    place = tmp_path / "place"
    place.mkdir()
    (project.root / ".onebox").symlink_to(place)
    done = project.onebox("provision")

    assert 78 == done.code
    assert "is not a folder" in done.err
    assert [] == list(place.iterdir())
    assert [] == project.boxes()
