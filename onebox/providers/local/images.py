"""
Images of local boxes: a copy of the home directory, and what in it is a path.

Virtual environments write the path they were made at into their scripts. A box's
home lies at another path than the one its image was made in, but the paths are
of equal length, since box ids are. So each image remembers which files and links
hold the old path, and the copy gets the new one in its place, byte for byte.
"""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from onebox.agent.files import manifest
from onebox.errors import ProviderError

from . import disk

# Of the box, not of the environment: code and data, keys, what was typed.
_LEFT_OUT = (
    "work",
    ".ssh",
    ".bash_history",
    ".python_history",
    ".zsh_history",
    ".lesshst",
    ".viminfo",
    ".wget-hsts",
)


def save(box: Path, home: Path, into: Path) -> dict[str, Any]:
    """Copy the home of the box at *box* to *into*; return what to remember."""
    into.mkdir(parents=True)
    entries = [entry for entry in home.iterdir() if entry.name not in _LEFT_OUT]
    disk.copy([entry for entry in entries if not _is_special(entry)], into)
    for path in list(_walk(into)):
        if _is_special(path):
            path.unlink()
    needle = os.fsencode(box)
    files, links = [], []
    for path in _walk(into):
        name = str(path.relative_to(into))
        if path.is_symlink():
            if needle in os.fsencode(path.readlink()):
                links.append(name)
        elif path.is_file() and _contains(path, needle):
            files.append(name)
    return {"source": str(box), "files": files, "links": links}


def restore(image: Path, remembered: dict[str, Any], box: Path, home: Path) -> None:
    """
    Copy the saved home at *image* to *home*, for the box that will be at *box*.

    Raises:
        ProviderError: It cannot be copied, or paths in it cannot be changed.
    """
    try:
        entries = list(image.iterdir())
    except FileNotFoundError as error:
        raise ProviderError(f"image {image.parent.name} has been removed") from error
    disk.copy(entries, home)
    old, new = os.fsencode(remembered["source"]), os.fsencode(box)
    files, links = remembered["files"], remembered["links"]
    if files and len(old) != len(new):
        raise ProviderError(
            f"the image holds {len(files)} files with the path {remembered['source']}, "
            f"and {box} is not as long: build it again"
        )
    for name in files:
        _replace(home / name, old, new)
    for name in links:
        link = home / name
        target = os.fsencode(link.readlink()).replace(old, new)
        link.unlink()
        link.symlink_to(os.fsdecode(target))


def _walk(path: Path) -> Iterator[Path]:
    for name in manifest.walk(os.fsencode(path), b"", unreadable=[]).paths:
        yield path / os.fsdecode(name)


def _is_special(path: Path) -> bool:
    kind = path.lstat().st_mode
    return not (stat.S_ISREG(kind) or stat.S_ISDIR(kind) or stat.S_ISLNK(kind))


def _contains(path: Path, needle: bytes) -> bool:
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size < len(needle):
                return False
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return content.find(needle) >= 0
    except PermissionError:
        # Not even its owner may read it: no program's path is in there.
        return False


def _replace(path: Path, old: bytes, new: bytes) -> None:
    before = path.stat()
    path.chmod(before.st_mode | stat.S_IRUSR | stat.S_IWUSR)
    path.write_bytes(path.read_bytes().replace(old, new))
    path.chmod(before.st_mode)
    # Python's compiled files are trusted as long as their source looks unchanged.
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
