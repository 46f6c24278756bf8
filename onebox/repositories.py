"""Names of version control's own folders: they can configure programs to run."""

from __future__ import annotations

import re

_LIKELY = re.compile(rb"(?:^|/)(?:[.\x80-\xff]|git~1)", re.IGNORECASE)
REPOSITORIES = frozenset([".git", "git~1", ".hg", ".jj", ".sl"])
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
