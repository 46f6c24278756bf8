"""Git decides what is code, and runs no program that a repository configures."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from onebox.repositories import repositories, repository_of
from onebox.transfer.select import select
from tests.transfer.test_select import git, write_files

Plant = Callable[[Path, Path], None]


def file_monitor(repository: Path, canary: Path) -> None:
    """Configure a file monitor that creates a canary file."""
    write_files(repository, ["a"], {})
    git(repository, "init", "-q")
    git(repository, "add", ".")
    monitor = f"touch {shlex.quote(str(canary))}; false"
    git(repository, "config", "core.fsmonitor", monitor)
    # The canary that this very command leaves is no proof.
    git(repository, "update-index", "--fsmonitor")


def hooks(repository: Path, canary: Path) -> None:
    """
    Install every hook that an index command could call; each creates a canary file.
    """
    file_monitor(repository, canary)
    for name in ("fsmonitor-watchman", "post-index-change", "query-watchman"):
        hook = repository / ".git" / "hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\ntouch {shlex.quote(str(canary))}\n")
        hook.chmod(0o755)
    git(repository, "config", "core.fsmonitor", ".git/hooks/query-watchman")


def filters(repository: Path, canary: Path) -> None:
    """Configure filters, an external diff and a pager that create a canary file."""
    write_files(repository, ["a"], {})
    (repository / ".gitattributes").write_text("* filter=f diff=f\n")
    git(repository, "init", "-q")
    git(repository, "add", ".")
    program = f"touch {shlex.quote(str(canary))}; cat"
    for name in ("filter.f.clean", "filter.f.smudge", "filter.f.process"):
        git(repository, "config", name, program)
    for name in ("diff.f.textconv", "diff.f.command", "diff.external"):
        git(repository, "config", name, program)
    for name in ("core.pager", "pager.ls-files", "core.editor"):
        git(repository, "config", name, program)
    # Its index no longer knows whether the file has changed.
    (repository / "a").write_text("other")


def missing_object(repository: Path, canary: Path) -> None:
    """Make git fetch a missing folder of a sparse index with a remote's own program."""
    origin = repository.parent / f"{repository.name}-origin"
    write_files(origin, ["kept/a", "left/deep/b"], {})
    git(origin, "init", "-q")
    git(origin, "config", "uploadpack.allowFilter", "true")
    git(origin, "add", ".")
    git(origin, "commit", "-q", "-m", "all")
    git(origin, "clone", "-q", "--no-local", "--filter=tree:0", ".", str(repository))
    git(repository, "sparse-checkout", "set", "--cone", "--sparse-index", "kept")
    tree = git(origin, "rev-parse", "HEAD:left").decode().strip()
    packs = repository / ".git" / "objects" / "pack"
    for index in packs.glob("*.idx"):
        if tree in git(repository, "verify-pack", "-v", str(index)).decode():
            for file in packs.glob(f"{index.stem}.*"):
                file.unlink()
    program = f"touch {shlex.quote(str(canary))}; false"
    git(repository, "config", "remote.origin.uploadpack", program)


@pytest.mark.parametrize("plant", [file_monitor, hooks, filters, missing_object])
@pytest.mark.parametrize("folder", [".", "inner"])
def test_selection_runs_no_program_that_a_repository_configures(
    tmp_path: Path, plant: Plant, folder: str
) -> None:
    """
    The project's repository and a nested one are listed without running a program.
    """
    root, canary = tmp_path / "project", tmp_path / "canary"
    root.mkdir()
    plant(root / folder, canary)
    if folder != ".":
        git(root, "init", "-q")
    canary.unlink(missing_ok=True)

    chosen = select(root, ["."], [], []).paths

    assert [path for path in chosen if path.rpartition(b"/")[2] == b"a"]
    assert not canary.exists()


@pytest.mark.parametrize("plant", [file_monitor, missing_object])
def test_plain_git_runs_the_planted_program(tmp_path: Path, plant: Plant) -> None:
    """Plain `git status` runs the planted program, so that the other test can fail."""
    canary = tmp_path / "canary"
    plant(tmp_path / "inner", canary)
    canary.unlink(missing_ok=True)

    for option in ("--stage", "--others"):
        # How git itself ends does not matter.
        with contextlib.suppress(subprocess.CalledProcessError):
            git(tmp_path / "inner", "ls-files", "-z", option)

    assert canary.exists()


@pytest.mark.parametrize("code", [["."], ["results/m"], ["results/"], [".", "results"]])
def test_git_never_runs_in_an_output_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: list[str]
) -> None:
    """If an output folder is pushed, a repository in it is listed without git."""
    write_files(tmp_path, ["main"], {})
    git(tmp_path, "init", "-q")
    file_monitor(tmp_path / "results" / "m", tmp_path / "canary")
    trace = tmp_path.parent / "trace"
    monkeypatch.setenv("GIT_TRACE_SETUP", str(trace))

    chosen = select(tmp_path, code, [], ["results/"])

    assert str(tmp_path / "results") not in trace.read_text()
    listed = b"results/m/a" in chosen.paths
    assert listed == any(name.startswith("results") for name in code)
    assert not [path for path in chosen.paths if b".git" in path.split(b"/")]


def test_git_does_not_follow_a_link_that_replaced_a_submodule(tmp_path: Path) -> None:
    """Git does not run in an output folder that a link leads to either."""
    inner, root = tmp_path / "lib", tmp_path / "project"
    write_files(inner, ["x"], {})
    git(inner, "init", "-q")
    git(inner, "add", ".")
    git(inner, "commit", "-q", "-m", "x")
    root.mkdir()
    git(root, "init", "-q")
    head = git(inner, "rev-parse", "HEAD").decode().strip()
    git(root, "update-index", "--add", "--cacheinfo", f"160000,{head},sub")
    file_monitor(root / "results" / "m", tmp_path / "canary")
    (tmp_path / "canary").unlink(missing_ok=True)
    (root / "sub").symlink_to("results/m")

    assert b"sub/a" not in select(root, ["."], [], ["results"]).paths
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    ("path", "repository"),
    [
        (b"results/m/.git/config", b"results/m/.git"),
        (b"results/m/.git", b"results/m/.git"),
        (b"a/.GIT/config", b"a/.GIT"),
        (b"a/.Git/x/.git/y", b"a/.Git"),
        ("a/.g\u200cit/config".encode(), "a/.g\u200cit".encode()),
        ("a/\ufeff.git/config".encode(), "a/\ufeff.git".encode()),
        (b"a/.git ./x", b"a/.git ."),
        (b"a/GIT~1/x", b"a/GIT~1"),
        (b"a/.git::$INDEX_ALLOCATION/x", b"a/.git::$INDEX_ALLOCATION"),
        (b"a/.hg/hgrc", b"a/.hg"),
        (b"a/.gitignore", None),
        (b"a/.gitattributes", None),
        (b"a/git/x", None),
        (b"a/m.git/config", None),
        (b"a/.github/x", None),
    ],
)
def test_name_of_a_git_folder_is_recognized_on_every_file_system(
    path: bytes, repository: bytes | None
) -> None:
    """Case, ignored characters and short names are variants of `.git`."""
    assert repository == repository_of(path)


@pytest.mark.parametrize(
    ("paths", "repository"),
    [
        ([b"r/m/HEAD", b"r/m/config", b"r/m/objects", b"r/m/refs"], b"r/m"),
        ([b"r/HEAD", b"r/commondir", b"r/config"], b"r"),
        ([b"m/Head", b"m/OBJECTS", b"m/config", b"m/refs/heads"], None),
        ([b"m/Head", b"m/OBJECTS", b"m/config", b"m/refs", b"m/refs/heads"], b"m"),
        ([b"m/HEAD", b"m/config", b"n/objects", b"n/refs"], None),
        ([b"m/config", b"m/objects", b"m/refs"], None),
    ],
)
def test_folder_with_the_files_of_a_repository_is_a_repository(
    paths: list[bytes], repository: bytes | None
) -> None:
    """
    The name of the folder does not matter; files beside it belong to no repository.
    """
    find = repositories([*paths, b"plain/x"])

    assert {repository} == {find(path) for path in paths if b"config" in path}
    assert repository in (None, find(paths[-1]))
    assert find(b"plain/x") is None
