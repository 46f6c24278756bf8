"""Find packages that a list of packages no longer has; they stay on a live box."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from onebox.images import python_project, stale_lock

_NAMES = re.compile(r"[A-Za-z0-9._-]+")


def listed(files: Iterable[Path]) -> set[str]:
    """
    Return the normal names of the packages that are installed for certain.

    Packages with a marker or a URL are left out, and so are those that other packages
    require.

    Args:
        files: Lists of packages and pyproject.toml files. A uv.lock adds nothing.
    """
    return {stale_lock.normal(name) for path in files for name in _listed(path)}


def unlisted(names: Collection[str], files: Iterable[Path]) -> list[str]:
    """
    Return those of *names* that no file mentions any more, sorted.

    Args:
        names: Normal names, from an earlier call of `listed`.
    """
    texts = [python_project.read(path) for path in files]
    mentioned = {
        stale_lock.normal(word.strip("._-"))
        for text in texts
        for word in _NAMES.findall(text)
    }
    return sorted(set(names) - mentioned)


def _listed(path: Path) -> Iterator[str]:
    text = python_project.read(path)
    if path.suffix == ".toml":
        table = dict(python_project.tables(text)).get("project", "")
        yield from stale_lock.listed(table, "dependencies")
    elif path.suffix != ".lock":
        for line in text.splitlines():
            name = stale_lock.package_of(line.partition(" #")[0])
            if name:
                yield name
