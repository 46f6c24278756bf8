"""Put complete files into the work folder, and record them."""

from __future__ import annotations

import os

from ..box import BoxConfig
from ..files.folder_writer import FolderWriter
from .record import DownloadRecord, Wanted


class Placing:
    """The work folder of a box, with the record of its downloads."""

    def __init__(self, box: BoxConfig, record: DownloadRecord) -> None:
        self._record = record
        self._writer = FolderWriter(os.fsencode(box.work))

    def begin(self, wanted: Wanted) -> None:
        """Note that a file is about to change."""
        self._record.begin(wanted.path)

    def place(self, wanted: Wanted, folder: int, name: bytes) -> None:
        """Move the complete file *name* of a folder to its place."""
        self._writer.place(wanted.path, folder, name)
        self._record.end(wanted, self._writer.stat(wanted.path))

    def save(self) -> None:
        """Write the record to the disk."""
        self._record.save()

    def close(self) -> None:
        """Close the folders."""
        self._writer.close()
