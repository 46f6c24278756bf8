"""Move fetched files to their places, and keep what is the user's."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from onebox.agent import file_names
from onebox.agent.files import manifest
from onebox.agent.files.hash_index import Index
from onebox.agent.files.manifest import Entry
from onebox.agent.files.tree import Tree, remove
from onebox.transfer.fsync import settle_disk
from onebox.transfer.ledger import Remembered

# As many links as Linux itself follows before it calls them a loop.
MOST_LINKS = 40


class Placing:
    """
    Puts files from the staging directory in their places.

    *staged* has the name there of each path; mode and times are set already.
    *kept* lists what the user had changed, with the name it has now.
    """

    def __init__(
        self,
        into: Path,
        known: Index,
        remembered: Remembered,
        staging: int,
        staged: dict[bytes, bytes],
    ) -> None:
        self._into = os.fsencode(into)
        self._known = known
        self._remembered = remembered
        self._staging = staging
        self._staged = staged
        self._tree = Tree(self._into, self._clear)
        self._made: set[bytes] = set()
        self.kept: list[tuple[bytes, bytes]] = []

    def place(self, entries: Sequence[Entry], blocks: Mapping[bytes, bytes]) -> None:
        """Place everything, and have it on the disk; remember the hashes of blocks."""
        made = [entry for entry in entries if entry.kind == "d" and self._make(entry)]
        self._made.update(entry.path for entry in made)
        opened = [entry for entry in entries if entry.kind == "d" and self._open(entry)]
        for entry in entries:
            if entry.kind == "f":
                staged = self._staged.get(entry.path)
                if staged is None:
                    self._keep(entry)
                else:
                    self._file(entry, staged)
                    self._know(entry, blocks.get(entry.path, b""))
            elif entry.kind == "l":
                self._link(entry)
        for entry in reversed(made + opened):
            self._tree.chmod(entry.path, entry.mode)
        self._sync(entries)

    def close(self) -> None:
        """Close the folder."""
        self._tree.close()

    def _make(self, entry: Entry) -> bool:
        with contextlib.suppress(OSError):
            if stat.S_ISDIR(self._tree.stat(entry.path).st_mode):
                return False
        self._tree.folder(entry.path)
        return True

    def _open(self, entry: Entry) -> bool:
        """Let files into a folder that is closed because the box has it so."""
        if entry.mode & 0o700 == 0o700 or entry.path in self._made:
            return False
        mode = stat.S_IMODE(self._tree.stat(entry.path).st_mode)
        # Or open: a crash came between this and its own mode.
        if mode not in (entry.mode, entry.mode | 0o700):
            return False
        self._tree.chmod(entry.path, entry.mode | 0o700)
        return True

    def _file(self, entry: Entry, staged: bytes) -> None:
        # As it is at this very moment: it may have become the user's. In a folder
        # that was made just now there is nothing of theirs.
        new = entry.path.rpartition(b"/")[0] in self._made
        here = None if new else self._look(entry.path)
        if here is not None and not (
            manifest.same_content(here, entry) or self._remembered.is_ours(here)
        ):
            self._clear(*self._tree.parent(entry.path), entry.path)
        try:
            self._tree.place(entry.path, self._staging, staged)
        except OSError as error:
            # The name in the staging directory says nothing to the user.
            raise OSError(error.errno, error.strerror, entry.path) from error

    def _keep(self, entry: Entry) -> None:
        here: os.stat_result | None = None
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            folder, name = self._tree.parent(entry.path, make=False)
            here = os.stat(name, dir_fd=folder, follow_symlinks=False)
        known = here and self._known.get(entry.path, here)
        if here is None or (known or self._read(entry.path)) != entry.sha:
            raise OSError(errno.ESTALE, "changed while being fetched", entry.path)
        now = (stat.S_IMODE(here.st_mode), here.st_mtime_ns)
        if now != (entry.mode, entry.mtime_ns):
            os.chmod(name, entry.mode, dir_fd=folder)
            times = (entry.mtime_ns, entry.mtime_ns)
            os.utime(name, ns=times, dir_fd=folder, follow_symlinks=False)
            self._know(entry)

    def _read(self, path: bytes) -> bytes | None:
        found = self._look(path)
        return found.sha if found is not None else None

    def _know(self, entry: Entry, blocks: bytes = b"") -> None:
        assert entry.sha is not None
        self._known.put(entry.path, self._tree.stat(entry.path), entry.sha, blocks)

    def _link(self, entry: Entry) -> None:
        folder, name = self._tree.parent(entry.path)
        here = self._look(entry.path)
        if here is not None and (here.kind, here.target) == ("l", entry.target):
            return
        if here is not None:
            self._clear(folder, name, entry.path)
        self._tree.link(entry.path, entry.target, self._staging)

    def _clear(self, folder: int, name: bytes, path: bytes) -> None:
        """Get something out of the way: what is ours goes, what is not is kept."""
        if self._all_ours(path):
            remove(folder, name)
            return
        free = name + b"~"
        count = 1
        while _taken(folder, free):
            count += 1
            free = name + b"~%d" % count
        os.rename(name, free, src_dir_fd=folder, dst_dir_fd=folder)
        above = path.rpartition(b"/")[0]
        self.kept.append((path, above + b"/" + free if above else free))

    def _all_ours(self, path: bytes) -> bool:
        found = manifest.scan(
            self._into, manifest.below(self._into, path), self._known, hashing=True
        )
        if found.special or found.unreadable or found.unstable:
            return False
        return all(
            entry.kind == "d" or self._remembered.is_ours(entry)
            for entry in found.entries
        )

    def _look(self, path: bytes) -> Entry | None:
        try:
            self._tree.stat(path)
        except FileNotFoundError:
            return None
        found = manifest.scan(self._into, [path], self._known, hashing=True)
        if found.special or found.unreadable:
            return Entry(path, "?", 0)
        return found.entries[0] if found.entries else None

    def _sync(self, entries: Sequence[Entry]) -> None:
        folders = {entry.path.rpartition(b"/")[0] for entry in entries}
        folders.update(entry.path for entry in entries if entry.kind == "d")
        for folder in list(folders):
            folders.update(_above(folder))
        folders.add(b"")
        if settle_disk(self._tree.base, len(folders)):
            return
        for folder in sorted(folders, reverse=True):
            os.fsync(self._tree.folder(folder, make=False))


def leads_out(entries: Sequence[Entry]) -> dict[bytes, bytes]:
    """Return the links that lead out of the tree, by whatever way: path and target."""
    links = {entry.path: entry.target for entry in entries if entry.kind == "l"}
    return {path: links[path] for path in sorted(links) if not _stays(path, links)}


def collisions(paths: Iterable[bytes]) -> list[list[bytes]]:
    """Return the groups of paths that a disk which folds case takes for one."""
    groups: dict[str, set[bytes]] = {}
    for path in paths:
        for name in [path, *_above(path)]:
            groups.setdefault(_folded(name), set()).add(name)
    return sorted(sorted(names) for names in groups.values() if len(names) > 1)


def folds_case(folder: Path) -> bool:
    """Say whether big and small letters are the same to this disk; ask it."""
    probe = folder / f"Case-{secrets.token_hex(4)}"
    probe.touch()
    try:
        return probe.with_name(probe.name.swapcase()).exists()
    finally:
        probe.unlink()


def _stays(path: bytes, links: dict[bytes, bytes]) -> bool:
    """Follow a link through all the others, as the system would."""
    here: list[bytes] = []
    ahead = path.split(b"/")[::-1]
    followed = 0
    while ahead:
        part = ahead.pop()
        if part in (b"", b"."):
            continue
        if part == b"..":
            if not here:
                return False
            here.pop()
            continue
        here.append(part)
        target = links.get(b"/".join(here))
        if target is None:
            continue
        followed += 1
        # A loop leads nowhere, so not out either.
        if followed > MOST_LINKS:
            return True
        if target.startswith(b"/"):
            return False
        here.pop()
        ahead.extend(target.split(b"/")[::-1])
    return True


def _folded(path: bytes) -> str:
    text = file_names.text(path)
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())


def _above(path: bytes) -> Iterator[bytes]:
    while b"/" in path:
        path = path.rpartition(b"/")[0]
        yield path


def _taken(folder: int, name: bytes) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
