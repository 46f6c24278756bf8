"""Names of version control's own folders: they can configure programs to run."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

_LIKELY = re.compile(rb"(?:^|/)(?:[.\x80-\xff]|git~1)", re.IGNORECASE)
REPOSITORIES = frozenset([".git", "git~1", ".hg", ".jj", ".sl"])
# What git wants to find in a folder, to take it for a repository.
BARE = frozenset([b"head", b"objects", b"refs"])
GIT_NEEDS = BARE | {b"commondir"}
# HFS+ ignores these characters in names, so that ".g\u200cit" is ".git" there.
IGNORED_BY_HFS = dict.fromkeys(
    [*range(0x200C, 0x2010), *range(0x202A, 0x202F), *range(0x206A, 0x2070), 0xFEFF]
)


def is_repository(name: bytes) -> bool:
    """Return whether some file system takes this name for a repository's folder."""
    text = name.decode("utf-8", "replace").translate(IGNORED_BY_HFS)
    # NTFS drops dots and spaces at the end, and a stream's name.
    return text.partition(":")[0].rstrip(". ").casefold() in REPOSITORIES


def repository_of(path: bytes) -> bytes | None:
    """Return the topmost repository folder (or `.git` file) in a path, if any."""
    if _LIKELY.search(path) is None:
        return None
    parts = path.split(b"/")
    for count, part in enumerate(parts, 1):
        if is_repository(part):
            return b"/".join(parts[:count])
    return None


def repositories(
    paths: Iterable[bytes], here: Callable[[bytes], bool] = lambda path: False
) -> Callable[[bytes], bytes | None]:
    """
    Return what returns the repository that one of these paths lies in, or None.

    Git takes any folder for a repository that has what it needs (a bare one), so
    that a shell's prompt in it runs what is configured there.

    Args:
        here: Tells whether a path exists where these are to be put.
    """
    bare = _bare(paths, here)
    if not bare:
        return repository_of

    def find(path: bytes) -> bytes | None:
        named = repository_of(path)
        top = named or path
        for end in [i for i, byte in enumerate(top) if byte == ord("/")]:
            if top[:end] in bare:
                return top[:end]
        return path if path in bare else named

    return find


def _bare(paths: Iterable[bytes], here: Callable[[bytes], bool]) -> frozenset[bytes]:
    found: dict[bytes, set[bytes]] = {}
    for path in paths:
        folder, _, name = path.rpartition(b"/")
        # Some file systems fold case.
        part = name.lower()
        if part in GIT_NEEDS:
            found.setdefault(folder, set()).add(part)
    for folder, names in found.items():
        # An earlier fetch may have brought the rest.
        for name in (b"HEAD", b"objects", b"refs", b"commondir"):
            if here(folder + b"/" + name):
                names.add(name.lower())
    return frozenset(
        folder
        for folder, names in found.items()
        # In a linked work tree's folder a file names where the rest is.
        if b"head" in names and (b"commondir" in names or names >= BARE)
    )
