"""Files that an image brings, for boxes that would otherwise download them."""

from __future__ import annotations

import os
import stat
from typing import List

from ..box import BoxConfig
from .partial_file import name_of
from .placing import Placing
from .record import DownloadRecord, Wanted

# The folder below the home folder. It is hidden, so that its files are no results.
CACHE = ".onebox-data"


class Cache(Placing):
    """The folder of these files; path and version of a file determine its name."""

    def __init__(self, box: BoxConfig) -> None:
        folder = os.path.join(box.home, CACHE)
        os.makedirs(folder, 0o700, exist_ok=True)
        self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def has(self, wanted: Wanted) -> bool:
        """Return whether the file is there."""
        try:
            st = os.stat(name_of(wanted), dir_fd=self._folder, follow_symlinks=False)
        except OSError:
            return False
        return stat.S_ISREG(st.st_mode) and st.st_size == wanted.size

    def begin(self, wanted: Wanted) -> None:
        """Do nothing: a file of another version has another name."""

    def place(self, wanted: Wanted, folder: int, name: bytes) -> None:
        """Move the complete file *name* of a folder into the cache."""
        os.rename(name, name_of(wanted), src_dir_fd=folder, dst_dir_fd=self._folder)

    def take(self, wanted: Wanted, into: Placing) -> bool:
        """Move a file from the cache to its place; return whether it was there."""
        if not self.has(wanted):
            return False
        into.begin(wanted)
        into.place(wanted, self._folder, name_of(wanted))
        return True

    def save(self) -> None:
        """Do nothing: the folder itself is the record."""

    def close(self) -> None:
        """Close the folder."""
        os.close(self._folder)


def staging(box: BoxConfig) -> bytes:
    """Return the folder of partial files for the cache."""
    return os.fsencode(os.path.join(box.home, CACHE, "partial"))


def _is_usable(box: BoxConfig) -> bool:
    """Return whether there is a cache on the disk of the work folder."""
    try:
        there = os.stat(os.path.join(box.home, CACHE)).st_dev
    except OSError:
        return False
    return there == os.stat(box.work).st_dev


def take(
    box: BoxConfig, record: DownloadRecord, wanted: List[Wanted], missing: List[int]
) -> List[int]:
    """Move what the image has brought to its place; return what is still missing."""
    if not _is_usable(box):
        return missing
    cache, placing = Cache(box), Placing(box, record)
    try:
        return [at for at in missing if not cache.take(wanted[at], placing)]
    finally:
        placing.save()
        placing.close()
        cache.close()
