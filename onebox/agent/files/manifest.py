"""
What a tree of files consists of, and how one end tells the other.

Two trees are equal when path, type, mode, link target, size and SHA-256 of
everything in them are; times are carried along, but not compared. Names are
bytes, whatever the locale.
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
)

from ..file_names import Hostile, brief, check_path, show
from .hash_index import Alive, Index, Unstable, read_hash

ROWS = 256
# No path in a folder is longer: Linux takes none that is.
LONGEST_PATH = 4096


class Entry(NamedTuple):
    """
    One file ("f"), directory ("d") or link ("l").

    *sha* is None as long as nobody has read the file.
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
    What was found, sorted, and what could not be.

    *special* are pipes, sockets and devices; *unstable* are files that were
    written to while they were read.
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
    Look at these paths below *base*; one that is not there is left out.

    A path that leads through a link is not there, unless the link is in *through*:
    such a link counts as what it leads to. Hashes come from *index* where it knows
    them, and from reading the files if *hashing* is set.
    """
    found = Scan([], [], [], [])
    real: Dict[bytes, bool] = {b"": True, **dict.fromkeys(through, True)}
    prefix = os.path.join(base, b"")
    for count, path in enumerate(sorted(set(paths))):
        if count % ROWS == 0:
            alive()
        folder = path.rpartition(b"/")[0]
        follow = path in through
        reached = follow or real.get(folder)
        if not (_reached(prefix, folder, real) if reached is None else reached):
            continue
        try:
            _look(prefix + path, path, index, hashing, alive, found, follow)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            found.unreadable.append(path)
    return found


class Walk(NamedTuple):
    """All *paths* below a folder, itself included; which of them are *links*."""

    paths: List[bytes]
    links: List[bytes]


def below(base: bytes, root: bytes) -> List[bytes]:
    """
    Return *root* and every path below it, links not followed.

    Raises:
        OSError: A directory cannot be read; its name is in the error.
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
    Walk through everything below *root*, links not followed.

    Args:
        follow: If *root* is a link, walk through the folder that it leads to.

        skip: Folders and files to leave out, with all that is in them.

        unreadable: Add folders that cannot be read to this list; by default the
            first one raises.

    Raises:
        OSError: A directory cannot be read; its name is in the error.
    """
    full = os.path.join(base, root) if root else base
    found = Walk([root] if root else [], [])
    mode = (os.stat if follow else os.lstat)(full).st_mode
    if stat.S_ISLNK(mode):
        found.links.append(root)
    if not stat.S_ISDIR(mode):
        return found
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            listed = os.scandir(os.path.join(base, folder) if folder else base)
        except (FileNotFoundError, NotADirectoryError):
            if folder == root:
                raise
            # A job that runs may remove or replace its folders while we look.
            continue
        except OSError:
            if unreadable is None:
                raise
            unreadable.append(folder)
            continue
        with listed as items:
            for item in items:
                path = folder + b"/" + item.name if folder else item.name
                if path in skip:
                    continue
                found.paths.append(path)
                if item.is_dir(follow_symlinks=False):
                    folders.append(path)
                elif item.is_symlink():
                    found.links.append(path)
    return found


def digest(entries: Iterable[Entry]) -> str:
    """Return one hash over all that counts of a sorted, fully hashed manifest."""
    whole = hashlib.sha256()
    for entry in entries:
        whole.update(line(entry))
    return whole.hexdigest()


def line(entry: Entry) -> bytes:
    """Return all that counts of an entry, in bytes."""
    path, kind, mode, size, _, target, sha = entry
    known = b"+" + sha if sha else b"-"
    numbers = b"%o %d" % (mode, size)
    return b"\0".join((kind.encode("ascii"), numbers, path, target, known, b""))


def with_hashes(entries: Iterable[Entry], hashes: Dict[bytes, bytes]) -> List[Entry]:
    """Return a manifest in which the files at these paths have these hashes."""
    return [
        entry._replace(sha=hashes[entry.path]) if entry.path in hashes else entry
        for entry in entries
    ]


def same(one: Entry, other: Entry) -> bool:
    """Say whether two entries are equal in all that counts."""
    return one.mode == other.mode and same_content(one, other)


def same_content(one: Entry, other: Entry) -> bool:
    """Say whether two entries are equal but for their modes."""
    return (
        one.kind == other.kind
        and one.size == other.size
        and one.target == other.target
        and one.sha == other.sha
    )


def check(entries: List[Entry], roots: Optional[Iterable[bytes]] = None) -> None:
    """
    Refuse a manifest that could name anything outside its base, or twice.

    With *roots*, everything has to be one of them or below one.

    Raises:
        Hostile: It names the path.
    """
    holders: Dict[bytes, bool] = {b"": True}
    kinds = {entry.path: entry.kind for entry in entries}
    tops = None if roots is None else set(roots)
    below = tuple(top and top + b"/" for top in tops or ())
    last = b""
    for entry in entries:
        path = entry.path
        if path <= last:
            raise Hostile("%s comes twice or out of order" % show(path))
        last = path
        if len(path) > LONGEST_PATH:
            raise Hostile("%s is too long" % brief(path))
        check_path(path)
        if entry.kind not in ("f", "d", "l"):
            raise Hostile("%s is a device or worse" % show(path))
        folder = path.rpartition(b"/")[0]
        held = holders.get(folder)
        if not (_held(folder, kinds, holders) if held is None else held):
            raise Hostile("%s leads through something that is no folder" % show(path))
        if tops is not None and path not in tops and not path.startswith(below):
            raise Hostile("%s was not asked for" % show(path))


def _look(
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
                st, sha, blocks = read_hash(full, alive, follow=follow)
                index.put(path, st, sha, blocks)
            except Unstable:
                found.unstable.append(path)
        found.entries.append(
            Entry(path, "f", mode, st.st_size, st.st_mtime_ns, b"", sha)
        )
    elif stat.S_ISDIR(st.st_mode):
        found.entries.append(Entry(path, "d", mode))
    elif stat.S_ISLNK(st.st_mode):
        # Some systems have modes on links; nothing ever looks at them.
        found.entries.append(Entry(path, "l", 0o777, target=os.readlink(full)))
    else:
        found.special.append(path)


def _reached(prefix: bytes, folder: bytes, real: Dict[bytes, bool]) -> bool:
    unknown = _up_to_known(folder, real)
    known = real[unknown[-1].rpartition(b"/")[0]] if unknown else real[folder]
    # From the top down, and not by recursion: a job can nest folders by the thousand.
    for path in reversed(unknown):
        if known:
            try:
                known = stat.S_ISDIR(os.lstat(prefix + path).st_mode)
            except OSError:
                known = False
        real[path] = known
    return known


def _held(folder: bytes, kinds: Dict[bytes, str], holders: Dict[bytes, bool]) -> bool:
    unknown = _up_to_known(folder, holders)
    known = holders[unknown[-1].rpartition(b"/")[0]] if unknown else holders[folder]
    for path in reversed(unknown):
        known = known and kinds.get(path, "d") == "d"
        holders[path] = known
    return known


def _up_to_known(folder: bytes, known: Dict[bytes, bool]) -> List[bytes]:
    """Return a folder and those above it, up to the first that is known."""
    unknown = []
    while folder not in known:
        unknown.append(folder)
        folder = folder.rpartition(b"/")[0]
    return unknown
