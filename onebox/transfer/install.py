"""Install fetched files at their paths, without overwriting files of the user."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import secrets
import stat
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from onebox import formatting
from onebox.agent import file_names
from onebox.agent.file_names import show
from onebox.agent.files import manifest
from onebox.agent.files.folder_writer import FolderWriter, remove
from onebox.agent.files.hash_index import Index
from onebox.agent.files.manifest import Entry
from onebox.agent.files.receiver import Receiver
from onebox.errors import OutputsHeld
from onebox.transfer.backups import free_name
from onebox.transfer.download import Downloaded
from onebox.transfer.fsync import sync_file_system, sync_files
from onebox.transfer.ledger import Ledger, Replaced
from onebox.transfer.other_disk import copy_into, copy_name, link_into


def install(
    entries: list[Entry],
    fresh: list[Entry],
    into: Path,
    memory: Path,
    index: Index,
    receiver: Receiver,
    downloaded: Downloaded,
    replaced: Replaced | None = None,
) -> list[tuple[bytes, bytes]]:
    """
    Install the entries; return the path and new name of each file that is kept aside.

    *fresh* are the new and changed ones among *entries*, *replaced* that of `Ledger`.
    """
    sync_files(receiver.fd, sorted(downloaded.staged.values()))
    ledger = Ledger(memory, replaced)
    # The ledger is saved before any file is installed, so that after a crash it lists
    # all installed files.
    ledger.add(fresh)
    ledger.save()
    with contextlib.closing(
        Installer(into, memory, index, ledger, receiver.fd, downloaded.staged)
    ) as installer:
        installer.install(entries, downloaded.blocks)
    ledger.mark_installed(entries)
    ledger.save()
    index.save()
    return installer.kept_aside


class Installer:
    """
    Moves files from the staging directory to their paths below *into*.

    If the user has changed the file at a path, that file gets another name first;
    *kept_aside* lists its path and its new name.

    Args:
        memory: The folder of the fetch memory.

        staging: The open staging directory.

        staged: Maps the path of each downloaded file to its name in the staging
            directory. The modes and times of these files are set already.
    """

    def __init__(
        self,
        into: Path,
        memory: Path,
        index: Index,
        ledger: Ledger,
        staging: int,
        staged: dict[bytes, bytes],
    ) -> None:
        self._into = os.fsencode(into)
        self._memory = memory
        self._index = index
        self._ledger = ledger
        self._staging = staging
        self._staged = staged
        self._writer = FolderWriter(self._into, self._clear)
        self._new_folders: set[bytes] = set()
        self._has_other_disks = False
        self.kept_aside: list[tuple[bytes, bytes]] = []

    def install(self, entries: Sequence[Entry], blocks: Mapping[bytes, bytes]) -> None:
        """
        Install all entries. When this returns, they are safely on the disk.

        Args:
            blocks: Block hashes to add to the index, by path.
        """
        folders = [entry for entry in entries if entry.kind == "d"]
        created = [entry for entry in folders if self._create_folder(entry)]
        self._new_folders.update(entry.path for entry in created)
        opened = [entry for entry in folders if self._make_writable(entry)]
        for entry in entries:
            if entry.kind == "f":
                staged = self._staged.get(entry.path)
                if staged is None:
                    self._check_unchanged(entry)
                else:
                    self._install_file(entry, staged)
                    self._add_to_index(entry, blocks.get(entry.path, b""))
            elif entry.kind == "l":
                self._install_link(entry)
        for entry in reversed(created + opened):
            self._writer.chmod(entry.path, entry.mode)
        self._sync(entries)

    def close(self) -> None:
        """Close the folders that are open."""
        self._writer.close()

    def _create_folder(self, entry: Entry) -> bool:
        with contextlib.suppress(OSError):
            if stat.S_ISDIR(self._writer.stat(entry.path).st_mode):
                return False
        self._writer.folder(entry.path)
        return True

    def _make_writable(self, entry: Entry) -> bool:
        """
        Make an older folder accessible if its mode on the box restricts the owner.

        Return whether this changed the folder's mode. If so, the caller must set the
        mode that the folder has on the box when all files are installed.
        """
        if entry.mode & 0o700 == 0o700 or entry.path in self._new_folders:
            return False
        mode = stat.S_IMODE(self._writer.stat(entry.path).st_mode)
        # `entry.mode | 0o700` is what an earlier call has left behind if it crashed
        # before it restored the mode. A folder with any other mode is left as it is.
        if mode not in (entry.mode, entry.mode | 0o700):
            return False
        self._writer.chmod(entry.path, entry.mode | 0o700)
        return True

    def _install_file(self, entry: Entry, staged: bytes) -> None:
        # The path is scanned again, because the user may have changed the file during
        # the download. In a folder that this fetch has created, no scan is needed,
        # because the user has no files there.
        new = entry.path.rpartition(b"/")[0] in self._new_folders
        here = None if new else self._scan(entry.path)
        if here is not None and not (
            manifest.same_content(here, entry) or self._ledger.is_ours(here)
        ):
            self._clear(*self._writer.parent(entry.path), entry.path)
        try:
            try:
                self._writer.place(entry.path, self._staging, staged)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                self._place_copy(entry.path, staged)
        except OSError as error:
            # The error must name the path of the output. The original error names the
            # file in the staging directory.
            raise OSError(error.errno, error.strerror, entry.path) from error

    def _place_copy(self, path: bytes, staged: bytes) -> None:
        """Copy a file to its path, which is on another disk than the staging folder."""
        with self._folder_of(path) as folder:
            copy_into(folder, self._staging, staged, self._copy)
            self._place_from(folder, path)
        os.unlink(staged, dir_fd=self._staging)

    def _place_from(self, folder: int, path: bytes) -> None:
        """Move a complete copy, which is in an open folder, to its path."""
        try:
            self._writer.place(path, folder, self._copy)
        except BaseException:
            remove(folder, self._copy)
            raise

    @functools.cached_property
    def _copy(self) -> bytes:
        return copy_name(self._memory)

    @contextlib.contextmanager
    def _folder_of(self, path: bytes) -> Iterator[int]:
        """Yield a descriptor of a path's folder, which is on another disk."""
        self._has_other_disks = True
        # The writer may close its own descriptor of the folder.
        folder = os.dup(self._writer.parent(path)[0])
        try:
            yield folder
        finally:
            os.close(folder)

    def _check_unchanged(self, entry: Entry) -> None:
        """
        Check that a local file still equals the output, and set its mode and times.

        The file was not downloaded, because it was equal to the output at that time.

        Raises:
            OSError: The file was changed or removed meanwhile.
        """
        here: os.stat_result | None = None
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            folder, name = self._writer.parent(entry.path, make=False)
            here = os.stat(name, dir_fd=folder, follow_symlinks=False)
        sha = here and self._index.get(entry.path, here)
        if here is None or (sha or self._hash(entry.path)) != entry.sha:
            raise OSError(errno.ESTALE, "changed while being fetched", entry.path)
        now = (stat.S_IMODE(here.st_mode), here.st_mtime_ns)
        if now != (entry.mode, entry.mtime_ns):
            os.chmod(name, entry.mode, dir_fd=folder)
            times = (entry.mtime_ns, entry.mtime_ns)
            os.utime(name, ns=times, dir_fd=folder, follow_symlinks=False)
            self._add_to_index(entry)

    def _hash(self, path: bytes) -> bytes | None:
        here = self._scan(path)
        return here.sha if here is not None else None

    def _add_to_index(self, entry: Entry, blocks: bytes = b"") -> None:
        assert entry.sha is not None
        self._index.put(entry.path, self._writer.stat(entry.path), entry.sha, blocks)

    def _install_link(self, entry: Entry) -> None:
        folder, name = self._writer.parent(entry.path)
        here = self._scan(entry.path)
        if here is not None and (here.kind, here.target) == ("l", entry.target):
            return
        if here is not None:
            self._clear(folder, name, entry.path)
        try:
            self._writer.link(entry.path, entry.target, self._staging)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            with self._folder_of(entry.path) as folder:
                link_into(folder, entry.target, self._copy)
                self._place_from(folder, entry.path)

    def _clear(self, folder: int, name: bytes, path: bytes) -> None:
        """
        Free a path for an output.

        Remove the file or folder there if fetches have installed all of it. Otherwise
        give it another name.
        """
        if self._all_ours(path):
            remove(folder, name)
            return
        free = free_name(name, functools.partial(_exists, folder))
        os.rename(name, free, src_dir_fd=folder, dst_dir_fd=folder)
        above = path.rpartition(b"/")[0]
        self.kept_aside.append((path, above + b"/" + free if above else free))

    def _all_ours(self, path: bytes) -> bool:
        scanned = manifest.scan(
            self._into, manifest.below(self._into, path), self._index, hashing=True
        )
        if scanned.special or scanned.unreadable or scanned.unstable:
            return False
        return all(
            entry.kind == "d" or self._ledger.is_ours(entry)
            for entry in scanned.entries
        )

    def _scan(self, path: bytes) -> Entry | None:
        """
        Return the entry at a path with its hash; None if nothing is there.

        The kind of the entry is "?" if the path is a pipe, socket or device, or cannot
        be read.
        """
        try:
            self._writer.stat(path)
        except FileNotFoundError:
            return None
        scanned = manifest.scan(self._into, [path], self._index, hashing=True)
        if scanned.special or scanned.unreadable:
            return Entry(path, "?", 0)
        return scanned.entries[0] if scanned.entries else None

    def _sync(self, entries: Sequence[Entry]) -> None:
        folders = {entry.path.rpartition(b"/")[0] for entry in entries}
        folders.update(entry.path for entry in entries if entry.kind == "d")
        for folder in list(folders):
            folders.update(_ancestors(folder))
        folders.add(b"")
        others = self._has_other_disks
        if not others and sync_file_system(self._writer.base, len(folders)):
            return
        for folder in sorted(folders, reverse=True):
            os.fsync(self._writer.folder(folder, make=False))


def check_names(entries: list[Entry], staging: Path) -> None:
    """Raise OutputsHeld if names differ only in case and this disk ignores case."""
    if not folds_case(staging):
        return
    clashes = collisions([entry.path for entry in entries])
    if clashes:
        names = [" and ".join(map(show, group)) for group in clashes]
        raise OutputsHeld(
            f"names that are equal on this disk: {formatting.first_names(names, 10)}"
        )


def collisions(paths: Iterable[bytes]) -> list[list[bytes]]:
    """Return the groups of paths that are equal for a disk that ignores case."""
    groups: dict[str, set[bytes]] = {}
    for path in paths:
        for name in [path, *_ancestors(path)]:
            groups.setdefault(_folded(name), set()).add(name)
    return sorted(sorted(names) for names in groups.values() if len(names) > 1)


def folds_case(folder: Path) -> bool:
    """Return whether the disk of a folder ignores case, by creating a file there."""
    probe = folder / f"Case-{secrets.token_hex(4)}"
    probe.touch()
    try:
        return probe.with_name(probe.name.swapcase()).exists()
    finally:
        probe.unlink()


def _folded(path: bytes) -> str:
    text = file_names.text(path)
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())


def _ancestors(path: bytes) -> Iterator[bytes]:
    while b"/" in path:
        path = path.rpartition(b"/")[0]
        yield path


def _exists(folder: int, name: bytes) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
