"""List the files that git tracks, without running programs of the repository."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterable

from onebox import subprocess_env
from onebox.errors import InputError

GITLINK = b"160000"
# Git prints one of these messages (in the C locale) for a folder in no work tree.
NO_REPOSITORY = (b"not a git repository", b"must be run in a work tree")
# These variables are hidden from git. They can name another repository, for example in
# a git hook, or change how paths are matched.
OTHER_REPOSITORY = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_COMMON_DIR",
    "GIT_PREFIX",
    "GIT_GLOB_PATHSPECS",
    "GIT_NOGLOB_PATHSPECS",
    "GIT_ICASE_PATHSPECS",
)
# A repository's configuration can name programs that git runs: a file monitor, hooks,
# and the remote helper that fetches a missing object of a partial clone. These settings
# and variables turn them off. (Filters and external diffs need no setting, because a
# listing applies none.)
SETTINGS = ("core.fsmonitor=", "core.hooksPath=/dev/null")
RUN_NOTHING = {"GIT_NO_LAZY_FETCH": "1", "GIT_ALLOW_PROTOCOL": ""}


def list_files(
    base: bytes, tops: Iterable[bytes], skip: Callable[[bytes], bool]
) -> tuple[set[bytes], set[bytes], set[bytes]] | None:
    """
    List the files below *tops*, including those of inner repositories.

    Args:
        skip: A function that gets the path of an inner repository and returns whether
            to skip it.

    Returns:
        Three sets: the tracked files, the files that `git add` would add, and the
        skipped inner repositories. None if *base* is in no repository, or if git is not
        installed.

    Raises:
        InputError: Git cannot read the repository.
    """
    staged = _ls_files(base, ["--stage"], tops)
    if staged is None:
        return None
    fresh = _ls_files(base, ["--others", "--exclude-standard"], tops)
    if fresh is None:
        return None
    tracked: set[bytes] = set()
    others: set[bytes] = set()
    inner: set[bytes] = set()
    for line in staged:
        about, _, path = line.partition(b"\t")
        (inner if about.startswith(GITLINK) else tracked).add(path)
    for path in fresh:
        # Git lists an inner repository with a slash at the end.
        (inner if path.endswith(b"/") else others).add(path.rstrip(b"/"))
    skipped = {folder for folder in inner if skip(folder)}
    for folder in inner - skipped:
        within = os.path.join(base, folder)
        # A repository behind a link is not entered, because the link could lead to a
        # folder that must be skipped.
        real = os.path.join(os.path.realpath(base), folder)
        if os.path.realpath(within) != real:
            continue
        if not os.path.lexists(os.path.join(within, b".git")):
            continue
        listed = list_files(within, [b""], _below(folder, skip))
        if listed is not None:
            for paths, inner_paths in zip((tracked, others, skipped), listed):
                paths.update(folder + b"/" + path for path in inner_paths)
    return tracked, others, skipped


def _below(folder: bytes, skip: Callable[[bytes], bool]) -> Callable[[bytes], bool]:
    return lambda path: skip(folder + b"/" + path)


def _ls_files(
    base: bytes, options: list[str], tops: Iterable[bytes]
) -> list[bytes] | None:
    environment = {
        name: value
        for name, value in subprocess_env.environment().items()
        if name not in OTHER_REPOSITORY
    }
    environment.update(
        RUN_NOTHING, LC_ALL="C", GIT_OPTIONAL_LOCKS="0", GIT_LITERAL_PATHSPECS="1"
    )
    command: list[str | bytes] = ["git", "--no-pager"]
    for setting in SETTINGS:
        command += ["-c", setting]
    command += ["ls-files", "-z", *options, "--"]
    command.extend(top or b"." for top in tops)
    try:
        done = subprocess.run(
            command, cwd=base, env=environment, capture_output=True, check=False
        )
    except FileNotFoundError:
        return None
    if done.returncode == 0:
        return [path for path in done.stdout.split(b"\0") if path]
    if any(sentence in done.stderr for sentence in NO_REPOSITORY):
        return None
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
    reason = lines[0] if lines else f"exit {done.returncode}"
    raise InputError(f"git cannot list the code: {reason}")
