"""List the objects that a box downloads, and check that they can be files there."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from onebox import formatting
from onebox.agent.file_names import NO_NAMES, show
from onebox.agent.files.manifest import LONGEST_PATH
from onebox.agent.files.manifest_exchange import MOST_ROWS
from onebox.errors import InputError
from onebox.providers.object_stores import ObjectStores, StoredObject
from onebox.settings.data_sources import DataSource

# The longest name of a file, in bytes, on the file systems of Linux.
LONGEST_NAME = 255
# The number of objects that are listed so far is reported after so many of them.
Listed = Callable[[str], None]


class DataFile(NamedTuple):
    """A file that the box makes from an object; *path* is in the project's folder."""

    path: bytes
    source: DataSource
    found: StoredObject


@dataclass(frozen=True)
class DataListing:
    """All files that a box downloads, sorted by path."""

    files: Sequence[DataFile]

    @cached_property
    def bytes(self) -> int:
        """Return the size of all files."""
        return sum(file.found.size for file in self.files)

    @cached_property
    def digest(self) -> str:
        """Return a hash that changes if any object does, or its place."""
        total = hashlib.sha256()
        for file in self.files:
            row = (file.path.hex(), file.found.size, file.found.version)
            total.update(repr(row).encode())
        return total.hexdigest()

    def of(self, source: DataSource) -> list[DataFile]:
        """Return the files of one source."""
        return [file for file in self.files if file.source == source]


def find(
    sources: Sequence[DataSource],
    stores: ObjectStores,
    listed: Listed = lambda text: None,
) -> DataListing:
    """
    Return what these sources hold now.

    Args:
        listed: Is called with a phrase about the progress.

    Raises:
        InputError: An address leads to nothing, or an object cannot be a file.

        OneboxError: A store refuses or does not answer.
    """
    files: list[DataFile] = []
    for source in sources:
        own: list[DataFile] = []
        for page in stores.of(source).find(source):
            own += filter(None, (_file(source, found) for found in page))
            listed(f"{source.shown}: {formatting.count(len(own), 'object')}")
            if len(files) + len(own) > MOST_ROWS:
                raise InputError(
                    f"{source.shown} has more than {MOST_ROWS:,} objects",
                    next="name a narrower prefix, or pack them into archives",
                )
        if not own:
            raise InputError(
                f"there is no object below {source.shown}",
                next="correct [push] data",
            )
        files += own
    files.sort(key=lambda file: file.path)
    _check_folders(files)
    return DataListing(files)


def _file(source: DataSource, found: StoredObject) -> DataFile | None:
    """Return the file of an object, None for the marker of a folder."""
    target = os.fsencode(source.target)
    if not source.is_folder:
        return DataFile(target, source, found)
    rest = found.key[len(source.key) :]
    if not found.size and (not rest or rest.endswith("/")):
        # Consoles of the clouds create such objects for folders.
        return None
    path = target + b"/" + rest.encode("utf-8", "surrogateescape")
    parts = path.split(b"/")
    if not NO_NAMES.isdisjoint(parts) or b"\0" in path:
        raise _no_file(source, found, "no file can have this name")
    if len(path) >= LONGEST_PATH or max(map(len, parts)) > LONGEST_NAME:
        raise _no_file(source, found, "its name is too long for a file")
    return DataFile(path, source, found)


def _no_file(source: DataSource, found: StoredObject, reason: str) -> InputError:
    name = f"{source.scheme}://{source.bucket}/{found.key}"
    return InputError(
        f"{show(name.encode('utf-8', 'surrogateescape'))}: {reason}",
        next="name a narrower prefix in [push] data, or copy the object to another key",
    )


def _check_folders(files: Sequence[DataFile]) -> None:
    """Raise InputError if a file would be in the place of a folder."""
    paths = {file.path for file in files}
    for file in files:
        above = file.path
        while b"/" in above:
            above = above.rpartition(b"/")[0]
            if above in paths:
                raise _no_file(
                    file.source,
                    file.found,
                    f"{show(above)} would be a file and a folder",
                )
