"""A push selects what git would track, and the listed data as they are."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from onebox.errors import InputError
from onebox.transfer.gitignore import tracked_without_git
from onebox.transfer.select import LeftOut, select

NAMES = ["a", "b", "ab", "x.o", "y.o", ".c", "a b", "[a]", "é", "a\n", "-n", "b\\"]
PIECES = [
    *["*", "**", "?", "a", "b", "x", ".o", "/", "/", "[ab]", "[!a]", "[^b]", "[a-c]"],
    *["[", "]", "\\", "!", "#", " ", "[[:alpha:]]", "[[:bogus:]]", "é", "[b-a]", "-"],
    *["\r", "\\ ", "[]a]", "[a\\]]", "**/", "/**", "[:", "b]", "[--b]", "[!]", "***"],
]
paths = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4).map("/".join)
lines = st.lists(st.sampled_from(PIECES), max_size=5).map("".join)
ignores = st.dictionaries(
    st.lists(st.sampled_from(["a", "b", "ab"]), max_size=2).map("/".join),
    st.lists(lines, min_size=1, max_size=5).map("\n".join),
    max_size=3,
)


@example(files=["a/b"], rules={"": "/a[!x]b"})
@example(files=["a", "b\\"], rules={"": "a\r\nb\\\r"})
@example(files=["a/b/ab", "b/ab"], rules={"": "a*\n!a", "a": "!ab", "a/b": "**/ab"})
@example(files=["a/b/x.o", "b"], rules={"": "a/**\n!a/b/\n[[:alpha:]]"})
@given(files=st.lists(paths, max_size=12), rules=ignores)
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_selection_without_git_equals_that_of_git(
    files: list[str], rules: dict[str, str]
) -> None:
    """
    Without a repository the same files are selected as git would, for any patterns.
    """
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write_files(root, files, rules)
        ours = tracked_without_git(os.fsencode(root), [b""])
        git(root, "init", "-q")

        assert ours == files_git_would_add(root)


@given(
    files=st.lists(paths, max_size=10),
    tracked=st.lists(paths, max_size=5),
    rules=ignores,
)
@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow])
def test_in_a_repository_code_is_what_git_tracks_or_would_add(
    files: list[str], tracked: list[str], rules: dict[str, str]
) -> None:
    """
    Tracked files are code even if they are ignored; so are files that git would
    add.
    """
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        git(root, "init", "-q")
        write_files(root, tracked, {})
        git(root, "add", "-f", ".")
        write_files(root, files, rules)
        listed = git(root, "ls-files", "-z", "-c", "-o", "--exclude-standard")
        there = {p for p in listed.split(b"\0") if p and exists(root, p)}

        assert select(root, ["."], [], []).paths == sorted(there)


def test_deleted_tracked_file_is_left_out(tmp_path: Path) -> None:
    """A tracked file that no longer exists is no error."""
    git(tmp_path, "init", "-q")
    write_files(tmp_path, ["gone", "here"], {})
    git(tmp_path, "add", ".")
    (tmp_path / "gone").unlink()

    assert select(tmp_path, ["."], [], []).paths == [b"here"]


def test_outputs_are_code_only_if_git_tracks_them(tmp_path: Path) -> None:
    """Below an output path only tracked files are code."""
    git(tmp_path, "init", "-q")
    write_files(tmp_path, ["out/.keep", "main"], {})
    git(tmp_path, "add", ".")
    write_files(tmp_path, ["out/result", "output"], {})

    chosen = select(tmp_path, ["."], [], ["out/"]).paths

    assert chosen == [b"main", b"out/.keep", b"output"]


def test_outputs_are_no_code_without_git(tmp_path: Path) -> None:
    """Without a repository no file below an output path is code."""
    write_files(tmp_path, ["out/result", "main"], {})

    assert select(tmp_path, ["."], [], ["out"]).paths == [b"main"]


@pytest.mark.parametrize("repository", [False, True])
def test_backups_of_outputs_are_no_code(tmp_path: Path, repository: bool) -> None:
    """
    A fetch keeps a file that was changed here as `model.pkl~`, `model.pkl~2`, ….

    Other files with such an end are code, and so are tracked ones and those that a
    path of the code names.
    """
    kept = ["model.pkl~", "m/a~2/x", "m/b~", "m/c~"]
    code = ["train.py~", "m/model.pkl~", "model.pkl~1", "model.pkl~x", "old~2"]
    if repository:
        git(tmp_path, "init", "-q")
        write_files(tmp_path, ["m/b~"], {})
        git(tmp_path, "add", ".")
    write_files(tmp_path, [*kept, *code], {"": "*.pkl\n"})
    git(tmp_path, "init", "-q", "m/a~3")
    outputs = ["model.pkl", "m/a/", "m/b", "m/c"]
    chosen = select(tmp_path, [".", "m/c~"], [], outputs)

    there = {".gitignore", *code, "m/c~"} | ({"m/b~"} if repository else set())
    assert chosen.paths == sorted(map(str.encode, there))
    left = [LeftOut(b"m/a~2/", 1), LeftOut(b"model.pkl~", 1)]
    left += [] if repository else [LeftOut(b"m/b~", 1)]
    assert chosen.left_out == sorted(left, key=lambda one: one.path)


def test_project_may_be_a_folder_of_a_repository(tmp_path: Path) -> None:
    """The ignore rules of the folders above it count."""
    git(tmp_path, "init", "-q")
    write_files(tmp_path, ["other", "project/src/a", "project/b.log"], {"": "*.log"})

    root = tmp_path / "project"

    assert select(root, ["."], [], []).paths == [b"src/a"]
    assert select(root, ["src"], [], []).paths == [b"src/a"]


def test_files_of_submodules_and_nested_repositories_are_code(tmp_path: Path) -> None:
    """They follow the ignore rules of their own repository."""
    inner = tmp_path / "inner"
    write_files(inner, ["lib", "x.o"], {"": "*.o"})
    git(inner, "init", "-q")
    git(inner, "add", "lib", ".gitignore")
    git(inner, "commit", "-q", "-m", "lib")
    root = tmp_path / "root"
    root.mkdir()
    git(root, "init", "-q")
    git(
        root,
        *["-c", "protocol.file.allow=always", "submodule", "--quiet", "add"],
        *[str(inner), "sub"],
    )
    write_files(root, ["sub/x.o", "sub/new", "nested/n"], {})
    git(root / "nested", "init", "-q")

    assert select(root, ["."], [], []).paths == [
        *[b".gitmodules", b"nested/n"],
        *[b"sub/.gitignore", b"sub/lib", b"sub/new"],
    ]


def test_git_variables_of_a_hook_are_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIT_DIR in the environment, as in a hook, does not select another repository."""
    git(tmp_path, "init", "-q")
    write_files(tmp_path, ["a"], {})
    monkeypatch.setenv("GIT_DIR", "/nowhere")

    assert select(tmp_path, ["."], [], []).paths == [b"a"]


def test_data_ignores_gitignore_and_keeps_empty_folders(tmp_path: Path) -> None:
    """Listed data ignore .gitignore; `.onebox` is still left out."""
    git(tmp_path, "init", "-q")
    write_files(
        tmp_path, ["data/x", "data/a/b.log", ".onebox/log"], {"": "data/\n*.log"}
    )
    (tmp_path / "data" / "empty").mkdir()

    chosen = select(tmp_path, ["."], ["data/", "."], []).paths

    assert {b"data", b"data/x", b"data/a", b"data/a/b.log", b"data/empty"} < set(chosen)
    assert not [path for path in chosen if path.startswith(b".onebox")]
    assert select(tmp_path, ["."], ["data"], []).paths == [
        *[b".gitignore", b"data", b"data/a", b"data/a/b.log", b"data/empty", b"data/x"],
    ]


@pytest.mark.parametrize("name", ["/etc", "../up", "a/../../b", "missing"])
def test_missing_or_outside_data_path_is_refused(tmp_path: Path, name: str) -> None:
    """A path that is missing, absolute or outside of the project is refused by name."""
    for code, data in ([name], []), ([], [name]):
        with pytest.raises(InputError, match=name):
            select(tmp_path, code, data, [])


def test_unreadable_files_are_all_named_at_once() -> None:
    """One error names the first five unreadable files and counts them."""
    # Root reads everything, so another user has to look.
    code = (
        "import os, sys; from pathlib import Path; sys.path[:0] = sys.argv[1:]\n"
        "from onebox.transfer.select import LeftOut, select\n"
        "os.getuid() or os.setuid(65534)\n"
        "select(Path('.'), ['.'], [], [])"
    )
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write_files(root, [f"f{n}" for n in range(7)], {})
        for path in root.iterdir():
            path.chmod(0)
        root.chmod(0o755)
        done = subprocess.run(
            [sys.executable, "-c", code, *sys.path],
            cwd=root,
            capture_output=True,
            check=False,
        )

    assert "InputError: cannot be read: f0, f1, f2, f3, f4 and 2 more" in (
        done.stderr.decode()
    )


def test_pipes_and_sockets_are_not_pushed(tmp_path: Path) -> None:
    """Pipes and sockets are skipped, with one warning each."""
    write_files(tmp_path, ["data/x"], {})
    os.mkfifo(tmp_path / "data" / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(tmp_path / "data")
        listener.bind("socket")
        os.chdir(here)

    chosen = select(tmp_path, [], ["data"], [])

    assert chosen.paths == [b"data", b"data/x"]
    assert [warning.split()[0] for warning in chosen.warnings] == [
        "data/pipe",
        "data/socket",
    ]


def test_link_out_of_the_project_is_pushed_with_a_warning(tmp_path: Path) -> None:
    """A link is pushed as a link; one that leaves the project causes a warning."""
    (tmp_path / "in").symlink_to("x/../y")
    (tmp_path / "out").symlink_to("../y")

    chosen = select(tmp_path, ["."], [], [])

    assert chosen.paths == [b"in", b"out"]
    assert chosen.warnings == [
        "out is a link to ../y, outside the project: what it leads to is not pushed"
    ]


def write_files(root: Path, files: list[str], rules: dict[str, str]) -> None:
    """Write these files where it is possible, and .gitignore files."""
    made = [*((name, "") for name in files)]
    made += [
        (f"{folder}/.gitignore".lstrip("/"), text) for folder, text in rules.items()
    ]
    for name, text in made:
        path = root / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode())
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            continue


def files_git_would_add(root: Path) -> set[bytes]:
    """Return the files that git would add."""
    listed = git(root, "ls-files", "-z", "--others", "--exclude-standard")
    return {path for path in listed.split(b"\0") if path}


def exists(root: Path, path: bytes) -> bool:
    """Return whether a path exists, also as a dangling link."""
    return os.path.lexists(os.fsencode(root) + b"/" + path)


def git(folder: Path, *words: str) -> bytes:
    """Run git without the settings of any user."""
    folder.mkdir(exist_ok=True)
    environment = {
        **os.environ,
        "HOME": "/nowhere",
        "XDG_CONFIG_HOME": "/nowhere",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@example.org",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@example.org",
    }
    return subprocess.run(
        ["git", *words], cwd=folder, env=environment, check=True, stdout=subprocess.PIPE
    ).stdout
