"""What is pushed is what git would track, and data as it is."""

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
from onebox.transfer.select import select

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
    """The walker chooses exactly what git chooses, whatever the patterns are."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        grow(root, files, rules)
        ours = tracked_without_git(os.fsencode(root), [b""])
        git(root, "init", "-q")

        assert ours == others(root)


@given(
    files=st.lists(paths, max_size=10),
    tracked=st.lists(paths, max_size=5),
    rules=ignores,
)
@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow])
def test_in_a_repository_git_decides(
    files: list[str], tracked: list[str], rules: dict[str, str]
) -> None:
    """Code is what git tracks, ignored or not, and what it would add."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        git(root, "init", "-q")
        grow(root, tracked, {})
        git(root, "add", "-f", ".")
        grow(root, files, rules)
        listed = git(root, "ls-files", "-z", "-c", "-o", "--exclude-standard")
        there = {p for p in listed.split(b"\0") if p and exists(root, p)}

        assert select(root, ["."], [], []).paths == sorted(there)


def test_what_git_tracks_but_is_deleted_stays_away(tmp_path: Path) -> None:
    """A tracked file that is no longer there is no reason to fail."""
    git(tmp_path, "init", "-q")
    grow(tmp_path, ["gone", "here"], {})
    git(tmp_path, "add", ".")
    (tmp_path / "gone").unlink()

    assert select(tmp_path, ["."], [], []).paths == [b"here"]


def test_outputs_are_code_only_if_git_tracks_them(tmp_path: Path) -> None:
    """Below an outputs path only what git tracks is code."""
    git(tmp_path, "init", "-q")
    grow(tmp_path, ["out/.keep", "main"], {})
    git(tmp_path, "add", ".")
    grow(tmp_path, ["out/result", "output"], {})

    chosen = select(tmp_path, ["."], [], ["out/"]).paths

    assert chosen == [b"main", b"out/.keep", b"output"]


def test_outputs_are_no_code_without_git(tmp_path: Path) -> None:
    """Outside a repository nothing below an outputs path is code."""
    grow(tmp_path, ["out/result", "main"], {})

    assert select(tmp_path, ["."], [], ["out"]).paths == [b"main"]


def test_a_part_of_the_repository_is_enough(tmp_path: Path) -> None:
    """The project may be a folder of a repository; rules above it count."""
    git(tmp_path, "init", "-q")
    grow(tmp_path, ["other", "project/src/a", "project/b.log"], {"": "*.log"})

    root = tmp_path / "project"

    assert select(root, ["."], [], []).paths == [b"src/a"]
    assert select(root, ["src"], [], []).paths == [b"src/a"]


def test_submodules_are_followed(tmp_path: Path) -> None:
    """Files of a submodule, and of a repository inside, are code by their rules."""
    inner = tmp_path / "inner"
    grow(inner, ["lib", "x.o"], {"": "*.o"})
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
    grow(root, ["sub/x.o", "sub/new", "nested/n"], {})
    git(root / "nested", "init", "-q")

    assert select(root, ["."], [], []).paths == [
        *[b".gitmodules", b"nested/n"],
        *[b"sub/.gitignore", b"sub/lib", b"sub/new"],
    ]


def test_git_variables_of_a_hook_are_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIT_DIR in the environment, as in a hook, is not this project's."""
    git(tmp_path, "init", "-q")
    grow(tmp_path, ["a"], {})
    monkeypatch.setenv("GIT_DIR", "/nowhere")

    assert select(tmp_path, ["."], [], []).paths == [b"a"]


def test_data_is_taken_as_it_is(tmp_path: Path) -> None:
    """Data ignores .gitignore, and keeps empty folders; ours never goes."""
    git(tmp_path, "init", "-q")
    grow(tmp_path, ["data/x", "data/a/b.log", ".onebox/log"], {"": "data/\n*.log"})
    (tmp_path / "data" / "empty").mkdir()

    chosen = select(tmp_path, ["."], ["data/", "."], []).paths

    assert {b"data", b"data/x", b"data/a", b"data/a/b.log", b"data/empty"} < set(chosen)
    assert not [path for path in chosen if path.startswith(b".onebox")]
    assert select(tmp_path, ["."], ["data"], []).paths == [
        *[b".gitignore", b"data", b"data/a", b"data/a/b.log", b"data/empty", b"data/x"],
    ]


@pytest.mark.parametrize("name", ["/etc", "../up", "a/../../b", "missing"])
def test_paths_have_to_be_there_and_inside(tmp_path: Path, name: str) -> None:
    """A path that is missing, absolute or climbs is refused by name."""
    for code, data in ([name], []), ([], [name]):
        with pytest.raises(InputError, match=name):
            select(tmp_path, code, data, [])


def test_unreadable_files_are_all_named_at_once() -> None:
    """One error names the first five unreadable files and counts them."""
    # Root reads everything, so another user has to look.
    code = (
        "import os, sys; from pathlib import Path; sys.path[:0] = sys.argv[1:]\n"
        "from onebox.transfer.select import select\n"
        "os.getuid() or os.setuid(65534)\n"
        "select(Path('.'), ['.'], [], [])"
    )
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        grow(root, [f"f{n}" for n in range(7)], {})
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
    """Pipes and sockets are skipped, with a warning each."""
    grow(tmp_path, ["data/x"], {})
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


def test_link_that_leads_out_is_pushed_with_a_warning(tmp_path: Path) -> None:
    """A link goes as a link; one that leaves the project is worth a warning."""
    (tmp_path / "in").symlink_to("x/../y")
    (tmp_path / "out").symlink_to("../y")

    chosen = select(tmp_path, ["."], [], [])

    assert chosen.paths == [b"in", b"out"]
    assert chosen.warnings == ["out is a link that leads out of the project"]


def grow(root: Path, files: list[str], rules: dict[str, str]) -> None:
    """Make files where there is room for them, and .gitignore files."""
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


def others(root: Path) -> set[bytes]:
    """Return what git would add."""
    listed = git(root, "ls-files", "-z", "--others", "--exclude-standard")
    return {path for path in listed.split(b"\0") if path}


def exists(root: Path, path: bytes) -> bool:
    """Say whether there is something of this name."""
    return os.path.lexists(os.fsencode(root) + b"/" + path)


def git(folder: Path, *words: str) -> bytes:
    """Run git, without anybody's settings."""
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
