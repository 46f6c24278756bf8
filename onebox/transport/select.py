"""Which files of the project belong on the box."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import children
from ..agent import manifest
from ..agent.index import Index
from ..agent.manifest import Entry
from ..agent.names import show
from ..errors import InputError
from .ignore import tracked_without_git
from .meter import listing

OWN = b".onebox"
GITLINK = b"160000"
ALL_READ = stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH
# What git says, in its C locale, where it has nothing to say about files.
NO_REPOSITORY = (b"not a git repository", b"must be run in a work tree")
# In a hook these speak of another repository than the one of this folder.
ELSEWHERE = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_COMMON_DIR",
    "GIT_PREFIX",
    "GIT_GLOB_PATHSPECS",
    "GIT_NOGLOB_PATHSPECS",
    "GIT_ICASE_PATHSPECS",
)


@dataclass(frozen=True)
class Selection:
    """
    What belongs on the box, sorted by path, and what the user should know of it.

    Folders are among it only where they lie below `data`. A file's hash is there
    only if it was known.
    """

    entries: list[Entry]
    warnings: list[str]

    @property
    def paths(self) -> list[bytes]:
        """Return the paths, relative to the root."""
        return [entry.path for entry in self.entries]


def select(
    root: Path,
    code: Sequence[str],
    data: Sequence[str],
    outputs: Sequence[str],
    known: Index | None = None,
) -> Selection:
    """
    Choose the files, links and data folders that a push brings to the box.

    Args:
        code: Of these paths, what git would track.

        data: These paths, with all that is below them.

        outputs: What the job leaves there is no code, unless git tracks it.

        known: Where hashes are known from.

    Raises:
        InputError: A path is not there or leads out of *root*, or some files
            cannot be read; all of them are named before anything is sent.
    """
    base = os.fsencode(root)
    chosen: set[bytes] = set()
    tops = [_top(root, name) for name in code]
    if tops:
        results = [_inside(name) for name in outputs]
        chosen.update(_code(base, tops, results))
    for name in data:
        chosen.update(_data(base, _top(root, name)))
    paths = [path for path in chosen if not _below(path, OWN)]
    return _checked(base, manifest.scan(base, paths, known or Index(), hashing=False))


def _code(base: bytes, tops: list[bytes], outputs: list[bytes]) -> set[bytes]:
    listed = _git(base, tops)
    if listed is None:
        tracked: set[bytes] = set()
        others = tracked_without_git(base, tops)
    else:
        tracked, others = listed
    return tracked.union(
        path for path in others if not any(_below(path, top) for top in outputs)
    )


def _git(base: bytes, tops: Iterable[bytes]) -> tuple[set[bytes], set[bytes]] | None:
    """Return what git tracks and what it would; None outside a repository."""
    staged = _ask_git(base, ["--stage"], tops)
    if staged is None:
        return None
    fresh = _ask_git(base, ["--others", "--exclude-standard"], tops)
    if fresh is None:
        return None
    tracked: set[bytes] = set()
    others: set[bytes] = set()
    inner: set[bytes] = set()
    for line in staged:
        about, _, path = line.partition(b"\t")
        (inner if about.startswith(GITLINK) else tracked).add(path)
    for path in fresh:
        # With a slash at its end it is a repository of its own.
        (inner if path.endswith(b"/") else others).add(path.rstrip(b"/"))
    for folder in inner:
        within = os.path.join(base, folder)
        if os.path.lexists(os.path.join(within, b".git")):
            listed = _git(within, [b""])
            if listed is not None:
                tracked.update(folder + b"/" + path for path in listed[0])
                others.update(folder + b"/" + path for path in listed[1])
    return tracked, others


def _ask_git(
    base: bytes, options: list[str], tops: Iterable[bytes]
) -> list[bytes] | None:
    environment = {
        name: value
        for name, value in children.environment().items()
        if name not in ELSEWHERE
    }
    environment.update(LC_ALL="C", GIT_OPTIONAL_LOCKS="0", GIT_LITERAL_PATHSPECS="1")
    command: list[str | bytes] = ["git", "ls-files", "-z", *options, "--"]
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
    said = done.stderr.decode("utf-8", "replace").strip().splitlines()
    raise InputError(f"git cannot list the code: {said[0] if said else 'no reason'}")


def _data(base: bytes, top: bytes) -> list[bytes]:
    try:
        return manifest.below(base, top)
    except OSError as error:
        name = os.fsencode(error.filename) if error.filename else top
        raise InputError(f"cannot be read: {show(name)}") from error


def _checked(base: bytes, found: manifest.Scan) -> Selection:
    prefix = os.path.join(base, b"")
    closed = found.unreadable
    warnings = [f"{show(path)} is no file, so it stays here" for path in found.special]
    for entry in found.entries:
        if entry.kind == "l":
            if _leaves(entry.path, entry.target):
                there = "is a link that leads out of the project"
                warnings.append(f"{show(entry.path)} {there}")
        # For the owner it is the owner's bit that counts, and nothing else.
        elif entry.mode & ALL_READ != ALL_READ and not os.access(
            prefix + entry.path, os.R_OK
        ):
            closed.append(entry.path)
    if closed:
        names = [show(path) for path in sorted(closed)]
        count = f" ({len(names)} in all)" if len(names) > 5 else ""
        raise InputError(f"cannot be read: {listing(names, 5)}{count}")
    return Selection(found.entries, warnings)


def _top(root: Path, name: str) -> bytes:
    top = _inside(name)
    if not os.path.lexists(os.path.join(os.fsencode(root), top)):
        raise InputError(f"{name} is not there, in {root}")
    return top


def _inside(name: str) -> bytes:
    parts = os.fsencode(name).split(b"/")
    if name.startswith("/") or b".." in parts or "\0" in name:
        raise InputError(f"{name} is no path inside the project")
    return b"/".join(part for part in parts if part not in (b"", b"."))


def _below(path: bytes, top: bytes) -> bool:
    return not top or path == top or path.startswith(top + b"/")


def _leaves(path: bytes, target: bytes) -> bool:
    above = os.path.normpath(os.path.join(os.path.dirname(path), target))
    return above.startswith((b"/", b"../")) or above == b".."
