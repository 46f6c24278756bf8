"""
The manifest of a tree of files: scan a folder, compare and check entries.

Two trees are equal if path, type, mode, link target, size and hash (see `block_hashes`)
of all their entries are equal. Times are stored but not compared. Paths are bytes.
"""

from __future__ import annotations

import hashlib
import os
import stat
from typing import (
    AbstractSet,
    Container,
    Dict,
    Iterable,
    List,
    NamedTuple,
    Optional,
    Set,
)

from ..file_names import Hostile, brief, check_path, show
from .hash_index import Alive, Index, Unstable, hash_file

# A scan calls *alive* once per this many paths.
ALIVE_EVERY = 256
# Linux accepts no path that is longer than this.
LONGEST_PATH = 4096


class Entry(NamedTuple):
    """
    One file, directory or link of a manifest.

    *kind* is "f" for a file, "d" for a directory, "l" for a link. *target* is the path
    that a link contains. *sha* is the hash of a file, or None if it is not known.
    """

    path: bytes
    kind: str
    mode: int
    size: int = 0
    mtime_ns: int = 0
    target: bytes = b""
    sha: Optional[bytes] = None


class Scan(NamedTuple):
    """
    The result of a scan: the *entries* sorted by path, and paths with problems.

    *special* are pipes, sockets and devices, which have no entry. *unreadable* are
    paths that could not be read. *unstable* are files that were written to while they
    were hashed; their entries have no hash.
    """

    entries: List[Entry]
    special: List[bytes]
    unreadable: List[bytes]
    unstable: List[bytes]


def scan(
    base: bytes,
    paths: Iterable[bytes],
    index: Index,
    *,
    hashing: bool,
    alive: Alive = lambda: None,
    through: AbstractSet[bytes] = frozenset(),
) -> Scan:
    """
    Return the entries at *paths* below *base*; missing paths are skipped.

    A path below a link counts as missing, unless the link is in *through*.

    Args:
        index: Where hashes are looked up, and new ones are stored.

        hashing: Read the files whose hashes are not in the index.

        through: Links that are replaced by what they lead to.
    """
    found = Scan([], [], [], [])
    # Maps a path to whether it is a folder that can be reached without following a
    # link. The links in *through* count as such folders.
    real: Dict[bytes, bool] = {b"": True, **dict.fromkeys(through, True)}
    prefix = os.path.join(base, b"")
    for count, path in enumerate(sorted(set(paths))):
        if count % ALIVE_EVERY == 0:
            alive()
        folder = path.rpartition(b"/")[0]
        follow = path in through
        is_real = follow or real.get(folder)
        if not (_is_real_folder(prefix, folder, real) if is_real is None else is_real):
            continue
        try:
            _scan_path(prefix + path, path, index, hashing, alive, found, follow)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            found.unreadable.append(path)
    return found


class Walk(NamedTuple):
    """
    The result of `walk`.

    *paths* are all paths that were found, *folders* the folders among them, and *links*
    the links among them.
    """

    paths: List[bytes]
    folders: Set[bytes]
    links: List[bytes]


def below(base: bytes, root: bytes) -> List[bytes]:
    """
    Return *root* and every path below it, without following links.

    Raises:
        OSError: A folder cannot be read; the error names it.
    """
    return walk(base, root).paths


def walk(
    base: bytes,
    root: bytes,
    *,
    follow: bool = False,
    skip: Container[bytes] = (),
    unreadable: Optional[List[bytes]] = None,
) -> Walk:
    """
    Return everything at and below *root*, without following links.

    Args:
        root: A path relative to the folder *base*.

        follow: If *root* is a link, walk the folder that it leads to.

        skip: Paths to leave out, with everything below them.

        unreadable: A list to which the paths of unreadable folders are added. Without
            it, the first of them raises.

    Raises:
        OSError: A folder cannot be read; the error names it.
    """
    full = os.path.join(base, root) if root else base
    found = Walk([root] if root else [], set(), [])
    mode = (os.stat if follow else os.lstat)(full).st_mode
    if stat.S_ISLNK(mode):
        found.links.append(root)
    if not stat.S_ISDIR(mode):
        return found
    found.folders.add(root)
    todo = [root]
    while todo:
        folder = todo.pop()
        try:
            scanned = os.scandir(os.path.join(base, folder) if folder else base)
        except (FileNotFoundError, NotADirectoryError):
            if folder == root:
                raise
            # A running job has removed or replaced the folder meanwhile.
            continue
        except OSError:
            if unreadable is None:
                raise
            unreadable.append(folder)
            continue
        with scanned as items:
            for item in items:
                path = folder + b"/" + item.name if folder else item.name
                if path in skip:
                    continue
                found.paths.append(path)
                if item.is_dir(follow_symlinks=False):
                    found.folders.add(path)
                    todo.append(path)
                elif item.is_symlink():
                    found.links.append(path)
    return found


def digest(entries: Iterable[Entry]) -> str:
    """
    Return one hash of the whole manifest *entries*, as hexadecimal text.

    The entries must be sorted, and the hashes of all files known.
    """
    whole = hashlib.sha256()
    for entry in entries:
        whole.update(entry_bytes(entry))
    return whole.hexdigest()


def entry_bytes(entry: Entry) -> bytes:
    """Return an entry as bytes to be hashed; its modification time is left out."""
    path, kind, mode, size, _, target, sha = entry
    marked_sha = b"+" + sha if sha else b"-"
    numbers = b"%o %d" % (mode, size)
    return b"\0".join((kind.encode("ascii"), numbers, path, target, marked_sha, b""))


def with_hashes(entries: Iterable[Entry], hashes: Dict[bytes, bytes]) -> List[Entry]:
    """
    Return *entries* with the file hashes that *hashes* has for their paths.

    An entry whose path is not in *hashes* stays as it is.
    """
    return [
        entry._replace(sha=hashes[entry.path]) if entry.path in hashes else entry
        for entry in entries
    ]


def same(one: Entry, other: Entry) -> bool:
    """Return whether two entries of the same path are equal, apart from their times."""
    return one.mode == other.mode and same_content(one, other)


def same_content(one: Entry, other: Entry) -> bool:
    """
    Return whether two entries of the same path are equal, apart from mode and times.
    """
    return (
        one.kind == other.kind
        and one.size == other.size
        and one.target == other.target
        and one.sha == other.sha
    )


def check(entries: List[Entry], roots: Optional[Iterable[bytes]] = None) -> None:
    """
    Check a manifest that came over the connection.

    It must be sorted and have each path once. No path may lead out of the folder that
    the manifest describes.

    Args:
        roots: If given, every path must be one of these paths or below one of them.

    Raises:
        Hostile: An entry breaks a rule; the error names its path.
    """
    folders: Dict[bytes, bool] = {b"": True}
    kinds = {entry.path: entry.kind for entry in entries}
    tops = None if roots is None else set(roots)
    below = tuple(top and top + b"/" for top in tops or ())
    last = b""
    for entry in entries:
        path = entry.path
        if path <= last:
            raise Hostile("%s appears twice or out of order" % show(path))
        last = path
        if len(path) > LONGEST_PATH:
            raise Hostile("%s is too long" % brief(path))
        check_path(path)
        if entry.kind not in ("f", "d", "l"):
            raise Hostile("%s is no file, folder or link" % show(path))
        folder = path.rpartition(b"/")[0]
        is_folder = folders.get(folder)
        if is_folder is None:
            is_folder = _all_folders(folder, kinds, folders)
        if not is_folder:
            raise Hostile("%s lies below something that is no folder" % show(path))
        if tops is not None and path not in tops and not path.startswith(below):
            raise Hostile("%s was not asked for" % show(path))


def _scan_path(
    full: bytes,
    path: bytes,
    index: Index,
    hashing: bool,
    alive: Alive,
    found: Scan,
    follow: bool,
) -> None:
    st = os.stat(full) if follow else os.lstat(full)
    mode = st.st_mode & 0o7777
    if stat.S_ISREG(st.st_mode):
        sha = index.get(path, st)
        if sha is None and hashing:
            try:
                st, sha, blocks = hash_file(full, alive, follow=follow)
                index.put(path, st, sha, blocks)
            except Unstable:
                found.unstable.append(path)
        found.entries.append(
            Entry(path, "f", mode, st.st_size, st.st_mtime_ns, b"", sha)
        )
    elif stat.S_ISDIR(st.st_mode):
        found.entries.append(Entry(path, "d", mode))
    elif stat.S_ISLNK(st.st_mode):
        # On some systems links have modes, which have no effect. So all links get the
        # same.
        found.entries.append(Entry(path, "l", 0o777, target=os.readlink(full)))
    else:
        found.special.append(path)


def _is_real_folder(prefix: bytes, folder: bytes, real: Dict[bytes, bool]) -> bool:
    """
    Return whether *folder* is a folder and is reached without following a link.

    The results for *folder* and its ancestors are added to *real*.
    """
    unknown = _unknown_ancestors(folder, real)
    known = real[unknown[-1].rpartition(b"/")[0]] if unknown else real[folder]
    # This is a loop from the top down and no recursion, because a job can nest
    # thousands of folders.
    for path in reversed(unknown):
        if known:
            try:
                known = stat.S_ISDIR(os.lstat(prefix + path).st_mode)
            except OSError:
                known = False
        real[path] = known
    return known


def _all_folders(
    folder: bytes, kinds: Dict[bytes, str], folders: Dict[bytes, bool]
) -> bool:
    """
    Return False if *folder* or one of its ancestors is a file or a link.

    *kinds* maps each path of the manifest to its kind. *folders* caches the results:
    this call adds those for *folder* and its ancestors.
    """
    unknown = _unknown_ancestors(folder, folders)
    known = folders[unknown[-1].rpartition(b"/")[0]] if unknown else folders[folder]
    for path in reversed(unknown):
        known = known and kinds.get(path, "d") == "d"
        folders[path] = known
    return known


def _unknown_ancestors(folder: bytes, known: Dict[bytes, bool]) -> List[bytes]:
    """Return *folder* and its ancestors, up to but without the first one in *known*."""
    unknown = []
    while folder not in known:
        unknown.append(folder)
        folder = folder.rpartition(b"/")[0]
    return unknown
