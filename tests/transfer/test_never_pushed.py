"""Virtual environments, packages and caches are not pushed as code."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from onebox.transfer.never_pushed import FOLDERS
from onebox.transfer.select import LeftOut, select

from .test_select import write_files


@pytest.mark.parametrize("repository", [False, True])
@pytest.mark.parametrize("folder", FOLDERS)
def test_listed_folders_are_not_pushed_from_any_folder(
    tmp_path: Path, folder: str, repository: bool
) -> None:
    """In git projects too, and each name is counted once."""
    if repository:
        git(tmp_path, "init")
    files = [f"{folder}/a", f"src/{folder}/b/c", f"src/x{folder}/d", f"at/{folder}"]
    write_files(tmp_path, [*files, "main.py"], {})
    chosen = select(tmp_path, ["."], [], [])

    assert chosen.paths == sorted(map(str.encode, [*files[2:], "main.py"]))
    assert chosen.caches == [LeftOut(folder.encode() + b"/", 2)]


def test_tracked_files_of_a_listed_folder_are_pushed(tmp_path: Path) -> None:
    """What git tracks belongs to the project."""
    git(tmp_path, "init")
    write_files(tmp_path, ["node_modules/ours/a"], {})
    git(tmp_path, "add", ".")
    write_files(tmp_path, ["node_modules/theirs/b"], {})
    chosen = select(tmp_path, ["."], [], [])

    assert chosen.paths == [b"node_modules/ours/a"]
    assert chosen.caches == [LeftOut(b"node_modules/", 1)]


def test_environment_is_known_by_its_marks_whatever_its_name(tmp_path: Path) -> None:
    """A folder called venv is code, unless it is a virtual environment."""
    write_files(tmp_path, ["venv/model.py", "a/env/pyvenv.cfg", "a/env/bin/python"], {})
    write_files(tmp_path, ["conda/conda-meta/history", "conda/lib/x"], {})
    chosen = select(tmp_path, ["."], [], [])

    assert chosen.paths == [b"venv/model.py"]
    assert chosen.caches == [LeftOut(b"a/env/", 2), LeftOut(b"conda/", 2)]


def test_project_folder_that_is_an_environment_is_pushed(tmp_path: Path) -> None:
    """The mark of the project folder itself does not leave out the whole project."""
    write_files(tmp_path, ["pyvenv.cfg", "main.py"], {})

    assert select(tmp_path, ["."], [], []).paths == [b"main.py", b"pyvenv.cfg"]


@pytest.mark.parametrize("named", [".cache/hub", ".cache", "."])
@pytest.mark.parametrize("as_data", [False, True])
def test_named_folder_is_pushed(tmp_path: Path, named: str, as_data: bool) -> None:
    """[push] code or data can name a folder of the list, or a part of one."""
    write_files(tmp_path, [".cache/hub/model", ".cache/pip/x", "main.py"], {})
    code = ["."] if as_data else [".", named]
    chosen = select(tmp_path, code, [named] if as_data else [], [])
    left = {".cache/hub": 1, ".cache": 0, ".": 0 if as_data else 2}[named]

    files = [entry.path for entry in chosen.entries if entry.kind == "f"]
    assert len(files) == 3 - left
    assert chosen.caches == ([LeftOut(b".cache/", left)] if left else [])


def git(root: Path, *words: str) -> None:
    """Run git in *root*."""
    subprocess.run(["git", *words], cwd=root, check=True, capture_output=True)
