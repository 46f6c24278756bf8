"""
Recognize the folders of version control, such as `.git`, in a list of paths.

The configuration in such a folder can name programs, which git or the prompt of a shell
then runs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

_LIKELY = re.compile(rb"(?:^|/)(?:[.\x80-\xff]|git~1)", re.IGNORECASE)
REPOSITORIES = frozenset([".git", "git~1", ".hg", ".jj", ".sl"])
# Git takes a folder with these entries for a bare repository.
BARE = frozenset([b"head", b"objects", b"refs"])
GIT_NEEDS = BARE | {b"commondir"}
# HFS+ ignores these characters in names, so that ".g\u200cit" is ".git" there.
IGNORED_BY_HFS = dict.fromkeys(
    [*range(0x200C, 0x2010), *range(0x202A, 0x202F), *range(0x206A, 0x2070), 0xFEFF]
)


def is_repository(name: bytes) -> bool:
    """Return whether some file system treats *name* as the name of a repository."""
    text = name.decode("utf-8", "replace").translate(IGNORED_BY_HFS)
    # At the end of a name, NTFS ignores dots and spaces, and a colon that is followed
    # by the name of a stream.
    return text.partition(":")[0].rstrip(". ").casefold() in REPOSITORIES


def repository_of(path: bytes) -> bytes | None:
    """Return *path* up to its topmost repository folder (or `.git` file), or None."""
    if _LIKELY.search(path) is None:
        return None
    parts = path.split(b"/")
    for count, part in enumerate(parts, 1):
        if is_repository(part):
            return b"/".join(parts[:count])
    return None


def repositories(
    paths: Iterable[bytes], exists: Callable[[bytes], bool] = lambda path: False
) -> Callable[[bytes], bytes | None]:
    """
    Return a function that tells in which repository a path lies.

    The returned function takes a path and returns the path of the repository, or None.
    It also recognizes bare repositories among *paths*. Any folder with the entries that
    git looks for is a bare repository.

    Args:
        exists: Returns whether a path already exists at the destination.
    """
    bare = _bare_repositories(paths, exists)
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


def _bare_repositories(
    paths: Iterable[bytes], exists: Callable[[bytes], bool]
) -> frozenset[bytes]:
    entries: dict[bytes, set[bytes]] = {}
    for path in paths:
        folder, _, name = path.rpartition(b"/")
        # Names are compared in lower case, because some file systems ignore case.
        entry = name.lower()
        if entry in GIT_NEEDS:
            entries.setdefault(folder, set()).add(entry)
    for folder, names in entries.items():
        # An earlier fetch may have brought the other entries of this folder.
        for name in (b"HEAD", b"objects", b"refs", b"commondir"):
            if exists(folder + b"/" + name):
                names.add(name.lower())
    return frozenset(
        folder
        for folder, names in entries.items()
        # Besides HEAD, git needs objects and refs, or `commondir`. In the folder of a
        # linked work tree, `commondir` names the repository that has these two.
        if b"head" in names and (b"commondir" in names or names >= BARE)
    )
