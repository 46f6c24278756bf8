"""
Save and restore images of local boxes, which are copies of the home directory.

Virtual environments contain the absolute path of their folder, and the home of a new
box has another path than that of the saved box. So an image lists the files and links
that contain the old path, and a restore replaces the path in the copies. Box ids, and
so these paths, are of equal length, which keeps the size of each file.
"""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from onebox.agent.files import manifest
from onebox.agent.home_entries import LEFT_OUT
from onebox.errors import ProviderError
from onebox.providers.values import Image, SaveProgress, Tags, ignore_progress

from . import directories
from .layout import read_json, write_json


@dataclass(frozen=True)
class SavedPaths:
    """
    The *files* and *links* of an image that contain the path of the saved box.

    That path is *source*.
    """

    source: str
    files: tuple[str, ...]
    links: tuple[str, ...]


def describe(folder: Path, image: Image, paths: SavedPaths) -> None:
    """Write the description of an image into its folder."""
    write_json(folder / "image.json", {**asdict(image), "paths": asdict(paths)})


def image(folder: Path) -> Image | None:
    """Return the image in a folder, None if the folder has no complete image."""
    saved = read_json(folder / "image.json")
    if saved is None:
        return None
    del saved["paths"]
    return Image(**{**saved, "tags": Tags.parse(saved["tags"]), "places": ()})


def paths(folder: Path) -> SavedPaths | None:
    """
    Return the files and links of an image that contain the path of the saved box.

    Return None if the folder holds no complete image.
    """
    saved = read_json(folder / "image.json")
    if saved is None:
        return None
    found = saved["paths"]
    return SavedPaths(found["source"], tuple(found["files"]), tuple(found["links"]))


def save(
    box: Path, home: Path, into: Path, progress: SaveProgress = ignore_progress
) -> SavedPaths:
    """
    Copy a box's home to *into*; return the copies that contain the box's path.

    *box* is that path, and *home* is the path of the home.
    """
    into.mkdir(parents=True)
    entries = [entry for entry in home.iterdir() if entry.name not in LEFT_OUT]
    entries = [entry for entry in entries if not _is_special(entry)]
    total = sum(map(directories.size, entries))
    directories.copy(
        entries, into, lambda done: progress(done / total if total else 1.0, total)
    )
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
    return SavedPaths(str(box), tuple(files), tuple(links))


def restore(saved_home: Path, paths: SavedPaths, box: Path, home: Path) -> None:
    """
    Copy an image's files to *home*, the home of a box whose path will be *box*.

    Raises:
        ProviderError: The image is gone, or the saved box's path cannot be replaced in
            it, because *box* has another length.
    """
    try:
        entries = list(saved_home.iterdir())
    except FileNotFoundError as error:
        name = saved_home.parent.name
        raise ProviderError(f"image {name} has been removed") from error
    directories.copy(entries, home)
    old, new = os.fsencode(paths.source), os.fsencode(box)
    if paths.files and len(old) != len(new):
        raise ProviderError(
            f"the image has {len(paths.files)} files with the path {paths.source}, "
            f"and {box} is not as long: build it again"
        )
    for name in paths.files:
        _replace(home / name, old, new)
    for name in paths.links:
        link = home / name
        target = os.fsencode(link.readlink()).replace(old, new)
        link.unlink()
        link.symlink_to(os.fsdecode(target))


def _walk(path: Path) -> Iterator[Path]:
    for name in manifest.walk(os.fsencode(path), b"", unreadable=[]).paths:
        yield path / os.fsdecode(name)


def _is_special(path: Path) -> bool:
    """
    Return whether a path is not a regular file, directory or symbolic link.
    """
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
        # A file that even its owner cannot read is not used by a program, so a path in
        # it does not matter.
        return False


def _replace(path: Path, old: bytes, new: bytes) -> None:
    before = path.stat()
    path.chmod(before.st_mode | stat.S_IRUSR | stat.S_IWUSR)
    path.write_bytes(path.read_bytes().replace(old, new))
    path.chmod(before.st_mode)
    # The file keeps its times. Python records a source file's modification time in the
    # compiled file, and ignores the compiled file if that time has changed.
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
