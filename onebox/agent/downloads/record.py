"""Store which version of which object each downloaded file is."""

from __future__ import annotations

import os
from typing import Dict, NamedTuple, Optional

from ..box import BoxConfig
from ..files.key_value_file import KeyValueFile

MAGIC = b"onebox downloads 1\n"
# The value of a path whose contents are not known, because a download is under way.
UNKNOWN = b"?"


class Wanted(NamedTuple):
    """
    A file that a download makes; *version* identifies the contents of its object.

    *mtime_ns* is when the object was written, 0 if that is unknown. The file gets this
    time.
    """

    path: bytes
    size: int
    mtime_ns: int
    version: bytes


def state_mark(st: os.stat_result) -> bytes:
    """
    Return the mark of a file in this state.

    One of size, mtime and ctime changes whenever the file is written. So a file with
    the same mark has the contents that were downloaded, and need not be read.
    """
    return b"s%d %d %d " % (st.st_size, st.st_mtime_ns, st.st_ctime_ns)


def is_as_downloaded(mark: bytes, st: os.stat_result) -> bool:
    """Return whether a file in this state is as the download with *mark* left it."""
    return mark.startswith(state_mark(st))


class DownloadRecord:
    """
    Maps the path of each downloaded file to its mark.

    A mark is the `state_mark` of the file, followed by the version of its object. The
    marks of finished files are kept when a download is interrupted.
    """

    def __init__(self, box: BoxConfig) -> None:
        self._work = os.fsencode(box.work)
        file = os.fsencode(box.path("files", "downloaded"))
        self._table = KeyValueFile(file, MAGIC, durable=True)

    @property
    def marks(self) -> Dict[bytes, bytes]:
        """Return the marks by path; b"" if the contents of a file are not known."""
        return {
            path: b"" if mark == UNKNOWN else mark
            for path, mark in self._table.rows.items()
        }

    def has(self, wanted: Wanted) -> bool:
        """Return whether a file is there, unchanged, in the wanted version."""
        mark = self._table.rows.get(wanted.path)
        if mark is None or not mark.startswith(b"s%d " % wanted.size):
            return False
        st = self._stat(wanted.path)
        return st is not None and mark == state_mark(st) + wanted.version

    def paths(self) -> Dict[bytes, bytes]:
        """Return the table, whose keys are the paths of all downloaded files."""
        return self._table.rows

    def begin(self, path: bytes) -> None:
        """Note that the contents of a file are about to change."""
        if self._table.rows.get(path) != UNKNOWN:
            self._table.put(path, UNKNOWN)

    def end(self, wanted: Wanted, st: os.stat_result) -> None:
        """Note that a file is complete and in the state *st*."""
        self._table.put(wanted.path, state_mark(st) + wanted.version)

    def remove(self, path: bytes) -> None:
        """Remove the mark of a file."""
        self._table.remove(path)

    def save(self) -> None:
        """Write all changes; return when they are on the disk."""
        self._table.save()

    def _stat(self, path: bytes) -> Optional[os.stat_result]:
        try:
            return os.lstat(os.path.join(self._work, path))
        except OSError:
            return None
