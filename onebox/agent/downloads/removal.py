"""Remove downloaded files that the project does not want any more."""

from __future__ import annotations

import os
from typing import Iterable

from ..box import BoxConfig
from ..files.folder_writer import FolderWriter
from .record import DownloadRecord


def remove_downloads(box: BoxConfig) -> None:
    """Remove all files that downloads have left."""
    if os.path.exists(box.path("files", "downloaded")):
        record = DownloadRecord(box)
        remove(box, record, list(record.paths()))


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
