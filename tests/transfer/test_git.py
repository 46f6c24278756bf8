"""Git is asked what is code; it runs nothing that a repository names."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from onebox.repositories import repositories, repository_of
from onebox.transfer.select import select
from tests.transfer.test_select import git, grow

Plant = Callable[[Path, Path], None]


def file_monitor(repository: Path, canary: Path) -> None:
    """Have git's file monitor be a program that leaves a canary."""
    grow(repository, ["a"], {})
    git(repository, "init", "-q")
    git(repository, "add", ".")
    monitor = f"touch {shlex.quote(str(canary))}; false"
    git(repository, "config", "core.fsmonitor", monitor)
    # The canary that this very command leaves is no proof.
    git(repository, "update-index", "--fsmonitor")


def hooks(repository: Path, canary: Path) -> None:
    """Have every hook that an index could call leave a canary."""
    file_monitor(repository, canary)
    for name in ("fsmonitor-watchman", "post-index-change", "query-watchman"):
        hook = repository / ".git" / "hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\ntouch {shlex.quote(str(canary))}\n")
        hook.chmod(0o755)
    git(repository, "config", "core.fsmonitor", ".git/hooks/query-watchman")


def filters(repository: Path, canary: Path) -> None:
    """Have filters, external diffs and the pager leave a canary."""
    grow(repository, ["a"], {})
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
    """Have git fetch a missing folder of a sparse index by a remote's own program."""
    origin = repository.parent / f"{repository.name}-origin"
    grow(origin, ["kept/a", "left/deep/b"], {})
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
    """The project's own repository and one inside it are listed, and run nothing."""
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
def test_the_plants_work_where_git_is_asked_as_usual(
    tmp_path: Path, plant: Plant
) -> None:
    """The plain command does run the planted program: the other test can fail."""
    canary = tmp_path / "canary"
    plant(tmp_path / "inner", canary)
    canary.unlink(missing_ok=True)

    for option in ("--stage", "--others"):
        # How git itself ends does not matter.
        with contextlib.suppress(subprocess.CalledProcessError):
            git(tmp_path / "inner", "ls-files", "-z", option)

    assert canary.exists()


@pytest.mark.parametrize("code", [["."], ["results/m"], ["results/"], [".", "results"]])
def test_git_never_runs_below_an_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: list[str]
) -> None:
    """A repository that a job left is listed by its names, if it is asked for."""
    grow(tmp_path, ["main"], {})
    git(tmp_path, "init", "-q")
    file_monitor(tmp_path / "results" / "m", tmp_path / "canary")
    trace = tmp_path.parent / "trace"
    monkeypatch.setenv("GIT_TRACE_SETUP", str(trace))

    chosen = select(tmp_path, code, [], ["results/"])

    assert str(tmp_path / "results") not in trace.read_text()
    listed = b"results/m/a" in chosen.paths
    assert listed == any(name.startswith("results") for name in code)
    assert not [path for path in chosen.paths if b".git" in path.split(b"/")]


def test_a_link_in_a_submodules_place_is_not_followed(tmp_path: Path) -> None:
    """Git is not run in an output folder by the way of a link either."""
    inner, root = tmp_path / "lib", tmp_path / "project"
    grow(inner, ["x"], {})
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
def test_a_repositorys_folder_is_known_on_every_file_system(
    path: bytes, repository: bytes | None
) -> None:
    """Case, ignored characters and short names make no other folder of it."""
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
def test_a_folder_with_all_that_git_needs_is_a_repository(
    paths: list[bytes], repository: bytes | None
) -> None:
    """Whatever its name is; what lies beside it belongs to none."""
    find = repositories([*paths, b"plain/x"])

    assert {repository} == {find(path) for path in paths if b"config" in path}
    assert repository in (None, find(paths[-1]))
    assert find(b"plain/x") is None
