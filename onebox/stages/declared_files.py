"""Find the files that a stage of the user declares as its inputs and outputs."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from onebox.agent.files import manifest
from onebox.errors import InputError
from onebox.settings.checks import InvalidValue, in_project
from onebox.transfer.backups import backups_of
from onebox.transfer.select import RECEIPT

_PATTERN = frozenset("*?[")
# Caches, environments, records of git and onebox, and receipts are left out below a
# declared folder. They count if a declared name names them.
_IGNORED = frozenset(
    (
        b".git",
        b".onebox",
        b".venv",
        b"__pycache__",
        b"node_modules",
        RECEIPT.encode(),
    )
)


@dataclass(frozen=True)
class Files:
    """
    The files that declared names stand for.

    Attributes:
        paths: The paths of files, folders and links, relative to the project.

        through: The links among them, or above them, that stand for what they lead to.
    """

    paths: set[bytes] = field(default_factory=set)
    through: set[bytes] = field(default_factory=set)


def matches(root: Path, name: str) -> list[bytes]:
    """
    Return the paths that a declared name or pattern stands for, relative to *root*.

    The project itself is b"". A pattern such as `**/*.py` has no match in folders that
    are left out.

    Raises:
        InputError: The name leaves the project.
    """
    try:
        in_project(name)
    except InvalidValue as problem:
        raise InputError(f"tasks.py: @stage: {problem}") from None
    if not _PATTERN.intersection(name):
        path = root / name
        found = [path] if path.exists() or path.is_symlink() else []
    else:
        named = [part for part in name.split("/") if part.strip("*?.")]
        found = [
            path
            for path in sorted(root.glob(name))
            if all(
                os.fsencode(part) not in _IGNORED
                or any(fnmatchcase(part, pattern) for pattern in named)
                for part in path.relative_to(root).parts
            )
        ]
    tops = [os.fsencode(path.relative_to(root)) for path in found]
    return [b"" if top == b"." else top for top in tops]


def find_outputs(root: Path, names: Iterable[str]) -> Files:
    """
    Return the files at and below the declared outputs.

    A link stands for what it leads to if its own path is declared. A link below a
    declared folder is only a link.
    """
    base = os.path.realpath(os.fsencode(root))
    found = Files()
    for top in _tops(root, names):
        target = _target(base, top)
        follow = top != b"" and _is_link(base, top) and not _is_within(base, target)
        if follow and os.path.exists(target):  # noqa: PTH110 - paths are bytes
            found.through.add(top)
        found.through.update(_links_above(base, top))
        skip = _Skip(top, target)
        found.paths.update(
            manifest.walk(base, top, follow=top in found.through, skip=skip).paths
        )
    return found


def find_inputs(root: Path, names: Iterable[str], outputs: Iterable[str]) -> Files:
    """
    Return the files at and below the declared inputs, without outputs and backups.

    A link stands for what it leads to, wherever it is. No folder is read twice, so
    links may form loops. A link remains a link if it leads to an output, to a folder
    that is left out, or to a folder that contains the link itself or the project.

    Args:
        outputs: The declared outputs. An input such as "." contains them.
    """
    base = os.path.realpath(os.fsencode(root))
    tops = _tops(root, names)
    produced = [_target(base, top) for top in _tops(root, outputs)]
    found = Files()
    links: list[bytes] = []
    walked: set[bytes] = set()
    for top in tops:
        found.through.update(_links_above(base, top))
        real = _target(base, top)
        walk = manifest.walk(base, top, skip=_Skip(top, real))
        found.paths.update(walk.paths)
        links += walk.links
        walked.update(_below(real, folder, top) for folder in walk.folders)
    for link in _in_order(links):
        real = _target(base, link)
        if not _is_followed(base, link, real, produced, declared=link in tops):
            continue
        if real in walked:
            continue
        found.through.add(link)
        skip = _Skip(link, real, walked)
        walk = manifest.walk(base, link, follow=True, skip=skip)
        found.paths.update(walk.paths)
        walked.update(_below(real, folder, link) for folder in walk.folders)
        links += sorted(walk.links)
    made = find_outputs(root, outputs).paths
    # A fetch keeps a backup of an output that was changed here.
    backup = backups_of({*made, *map(os.fsencode, map(os.path.normpath, outputs))})
    found.paths.difference_update(made)
    found.paths.difference_update([*filter(backup.match, found.paths)])
    return found


class _Skip:
    """
    The paths that a walk leaves out: ignored names, and folders that were walked.

    Args:
        top: Where the walk begins, relative to the project; *real* is where that is.

        walked: The real paths of the folders that were walked.
    """

    def __init__(
        self, top: bytes, real: bytes, walked: Iterable[bytes] = frozenset()
    ) -> None:
        self._top, self._real, self._walked = top, real, walked

    def __contains__(self, path: object) -> bool:
        if not isinstance(path, bytes):
            return False
        if path.rpartition(b"/")[2] in _IGNORED:
            return True
        return bool(self._walked) and (
            _below(self._real, path, self._top) in self._walked
        )


def _tops(root: Path, names: Iterable[str]) -> dict[bytes, None]:
    return dict.fromkeys(top for name in names for top in matches(root, name))


def _in_order(links: list[bytes]) -> Iterator[bytes]:
    """Yield the links, those that were found first, and those added meanwhile."""
    links.sort()
    seen: set[bytes] = set()
    for link in links:
        if link not in seen:
            seen.add(link)
            yield link


def _is_followed(
    base: bytes,
    link: bytes,
    target: bytes,
    produced: Iterable[bytes],
    *,
    declared: bool,
) -> bool:
    """Return whether a link among the inputs stands for its *target*."""
    try:
        mode = os.stat(target).st_mode  # noqa: PTH116 - paths are bytes
    except OSError:
        return False
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        return False
    place = _target(base, link.rpartition(b"/")[0])
    if _is_within(place, target) or _is_within(base, target):
        return False
    if any(_is_within(target, one) or _is_within(one, target) for one in produced):
        return False
    inside = target[len(base) :].split(b"/") if _is_within(target, base) else []
    return declared or _IGNORED.isdisjoint(inside)


def _links_above(base: bytes, top: bytes) -> Iterator[bytes]:
    """Yield the links among the folders that *top* is in."""
    folder = top.rpartition(b"/")[0]
    while folder:
        if _is_link(base, folder):
            yield folder
        folder = folder.rpartition(b"/")[0]


def _is_link(base: bytes, path: bytes) -> bool:
    return os.path.islink(os.path.join(base, path))  # noqa: PTH114, PTH118 - bytes


def _target(base: bytes, path: bytes) -> bytes:
    """Return the real path of *path*, which is relative to *base*."""
    return os.path.realpath(os.path.join(base, path))  # noqa: PTH118 - paths are bytes


def _below(real: bytes, path: bytes, top: bytes) -> bytes:
    """Return the real path of *path*, which is at or below *top*, whose is *real*."""
    rest = path[len(top) :].strip(b"/")
    return real + b"/" + rest if rest else real


def _is_within(path: bytes, folder: bytes) -> bool:
    return path == folder or path.startswith(folder.rstrip(b"/") + b"/")
