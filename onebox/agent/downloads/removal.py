"""Remove what downloads have left, and the project does not want any more."""

from __future__ import annotations

import contextlib
import os
from typing import Iterable

from ..box import BoxConfig
from ..files.folder_writer import FolderWriter
from ..files.folder_writer import remove as remove_entry
from .record import DownloadRecord


def staging(box: BoxConfig) -> bytes:
    """Return the folder of partial files, on the disk of the finished ones."""
    folder = box.path("files", "downloads")
    if os.stat(box.root).st_dev != os.stat(box.work).st_dev:
        folder = os.path.join(box.work, ".onebox", "downloads")
    return os.fsencode(folder)


def remove_partial(folder: bytes, wanted: Iterable[bytes]) -> int:
    """
    Remove the partial files that are not *wanted*; return the size of the others.

    The size is that of what has arrived, in bytes.
    """
    kept = frozenset(wanted)
    size = 0
    with contextlib.suppress(FileNotFoundError):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name in map(os.fsencode, os.listdir(fd)):
                if name.partition(b".")[0] not in kept:
                    remove_entry(fd, name)
                else:
                    st = os.stat(name, dir_fd=fd, follow_symlinks=False)
                    size += st.st_blocks * 512
        finally:
            os.close(fd)
    return size


def remove_downloads(box: BoxConfig) -> None:
    """Remove all files that downloads have left."""
    if os.path.exists(box.path("files", "downloaded")):
        record = DownloadRecord(box)
        remove(box, record, list(record.paths()))
        remove_partial(staging(box), ())


def remove(box: BoxConfig, record: DownloadRecord, paths: Iterable[bytes]) -> None:
    """Remove these files, unless a push has put another file in the place."""
    # The import is here because that module reads the record, too.
    from ..files.push_record import read_record

    pushed = read_record(box, "pushed").marks
    writer = FolderWriter(os.fsencode(box.work))
    try:
        for path in sorted(paths, reverse=True):
            if path not in pushed:
                writer.remove(path)
            record.remove(path)
    finally:
        writer.close()
    record.save()
