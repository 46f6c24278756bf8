"""The difference between the files to push and those on the box, with folder sizes."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from onebox import formatting
from onebox.agent.file_names import show
from onebox.agent.files.manifest import Entry


@dataclass(frozen=True)
class Difference:
    """
    The difference between the local files and those on the box.

    Attributes:
        entries: All entries to push.

        changed: The paths that differ or are missing on the box.

        contents: Those of *changed* whose contents are sent.

        gone: The paths that are deleted on the box.
    """

    entries: list[Entry]
    changed: Collection[bytes] = field(default_factory=set)
    contents: Collection[bytes] = field(default_factory=set)
    gone: list[bytes] = field(default_factory=list)

    @classmethod
    def of_empty_box(cls, entries: list[Entry]) -> Difference:
        """Return the difference if there is nothing on the box yet."""
        paths = {entry.path for entry in entries}
        return cls(entries, paths, paths)

    @property
    def files(self) -> list[Entry]:
        """Return the files and links to push, changed or not."""
        return [entry for entry in self.entries if entry.kind != "d"]

    @property
    def to_send(self) -> list[Entry]:
        """Return the entries whose contents are sent."""
        return [entry for entry in self.entries if entry.path in self.contents]

    def __bool__(self) -> bool:
        """Return whether there is any difference."""
        return bool(self.changed or self.gone)

    def describe(self) -> str:
        """Return a phrase that counts and names what differs, "" if nothing does."""
        phrases = []
        files = [entry.path for entry in self.files]
        names = [path for path in files if path in self.changed]
        counted = f"{len(names):,} of {formatting.count(len(files), 'file')}"
        if not names:
            names = sorted(self.changed)
            counted = formatting.count(len(names), "folder")
        if names:
            verb = "differs" if len(names) == 1 else "differ"
            phrases.append(f"{counted} {verb}: {_first(names)}")
        if self.gone:
            phrases.append(f"{len(self.gone):,} deleted: {_first(self.gone)}")
        return "; ".join(phrases)


# Files of at least this many bytes in the project folder itself are named.
_BIG = 1 << 20


def folder_sizes(entries: Iterable[Entry]) -> list[tuple[str, int]]:
    """
    Return the folders that hold the entries, with their bytes, the biggest first.

    A folder is named by at most two parts of its path, such as "data/raw/". A big file
    in the project folder itself is named; "./" are the other files there.
    """
    sizes: dict[bytes, int] = {}
    for entry in entries:
        if entry.kind == "f":
            *parts, name = entry.path.split(b"/")
            folder = b"/".join([*(parts[:2] or [b"."]), b""])
            if not parts and entry.size >= _BIG:
                folder = name
            sizes[folder] = sizes.get(folder, 0) + entry.size
    largest = sorted(sizes.items(), key=lambda item: (-item[1], item[0]))
    return [(show(folder), size) for folder, size in largest]


def _first(paths: list[bytes]) -> str:
    return formatting.first_names([show(path) for path in paths])
