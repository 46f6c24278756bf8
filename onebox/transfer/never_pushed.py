"""
Leave virtual environments, packages and caches out of the pushed code.

The box has its own, they are often larger than the rest of the project, and a virtual
environment works only in the folder where it was created. Files that git tracks and
everything that `[push]` names are still pushed.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable

# Folders with these names are not pushed, wherever they are. README.md refers to this
# list.
FOLDERS = (
    *(".venv", "node_modules", "__pycache__", ".cache", ".ipynb_checkpoints"),
    *(".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis"),
    *(".tox", ".nox", ".eggs", ".pixi"),
)
# A folder of any name that has one of these files is an environment, and is not pushed.
# The first file is that of `venv`, the second that of conda.
MARKS = ("pyvenv.cfg", "conda-meta/history")

_FOLDERS = re.compile(
    b"(?:^|/)(?:%s)(?=/)" % b"|".join(re.escape(os.fsencode(name)) for name in FOLDERS)
)


def separate(
    files: Iterable[bytes], named: Iterable[bytes]
) -> tuple[set[bytes], dict[bytes, set[bytes]]]:
    """
    Separate the files to push from those in environments and caches.

    Args:
        files: The untracked files of the project.

        named: The paths that the user has configured. If such a path is a folder of
            the list or lies in one, everything at and below that path is pushed.

    Returns:
        The files to push. Then the files that are left out, by folder: a name of
        `FOLDERS`, or else the path of an environment.
    """
    files = set(files)
    environments = {
        path[: -len(mark)]
        for mark in (b"/" + os.fsencode(mark) for mark in MARKS)
        for path in files
        if path.endswith(mark)
    }
    tops = [top for top in named if _folder_of(top + b"/x", environments)]
    kept: set[bytes] = set()
    left: dict[bytes, set[bytes]] = {}
    for path in files:
        folder = _folder_of(path, environments)
        if folder is None or any(
            path == top or path.startswith(top + b"/") for top in tops
        ):
            kept.add(path)
            continue
        name = posixpath.basename(folder)
        name = name if os.fsdecode(name) in FOLDERS else folder
        left.setdefault(name, set()).add(path)
    return kept, left


def _folder_of(path: bytes, environments: set[bytes]) -> bytes | None:
    """Return the outermost folder above *path* that is left out, None if none is."""
    match = _FOLDERS.search(path)
    found = path[: match.end()] if match else None
    if environments:
        end = path.find(b"/")
        while end >= 0 and (found is None or end < len(found)):
            if path[:end] in environments:
                return path[:end]
            end = path.find(b"/", end + 1)
    return found
