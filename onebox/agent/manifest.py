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
    Dict,
    Iterable,
    List,
    NamedTuple,
    Optional,
)

from .index import Alive, Index, Unstable, read_hash
from .names import Hostile, check_path, show

ROWS = 256


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
) -> Scan:
    """
    Look at these paths below *base*; one that is not there is left out.

    A path that leads through a link is not there. Hashes come from *index*
    where it knows them, and from reading the files if *hashing* is set.
    """
    found = Scan([], [], [], [])
    real: Dict[bytes, bool] = {b"": True}
    prefix = os.path.join(base, b"")
    for count, path in enumerate(sorted(set(paths))):
        if count % ROWS == 0:
            alive()
        folder = path.rpartition(b"/")[0]
        reached = real.get(folder)
        if not (_reached(prefix, folder, real) if reached is None else reached):
            continue
        try:
            _look(prefix + path, path, index, hashing, alive, found)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            found.unreadable.append(path)
    return found


def below(base: bytes, root: bytes) -> List[bytes]:
    """
    Return *root* and every path below it, links not followed.

    Raises:
        OSError: A directory cannot be read; its name is in the error.
    """
    full = os.path.join(base, root) if root else base
    paths = [root] if root else []
    if not stat.S_ISDIR(os.lstat(full).st_mode):
        return paths
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            found = os.scandir(os.path.join(base, folder) if folder else base)
        except (FileNotFoundError, NotADirectoryError):
            if folder == root:
                raise
            # A job that runs may remove or replace its folders while we look.
            continue
        with found as items:
            for item in items:
                path = folder + b"/" + item.name if folder else item.name
                paths.append(path)
                if item.is_dir(follow_symlinks=False):
                    folders.append(path)
    return paths


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
    full: bytes, path: bytes, index: Index, hashing: bool, alive: Alive, found: Scan
) -> None:
    st = os.lstat(full)
    mode = st.st_mode & 0o7777
    if stat.S_ISREG(st.st_mode):
        sha = index.get(path, st)
        if sha is None and hashing:
            try:
                st, sha, blocks = read_hash(full, alive)
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
    known = real.get(folder)
    if known is None:
        known = _reached(prefix, folder.rpartition(b"/")[0], real)
        if known:
            try:
                known = stat.S_ISDIR(os.lstat(prefix + folder).st_mode)
            except OSError:
                known = False
        real[folder] = known
    return known


def _held(folder: bytes, kinds: Dict[bytes, str], holders: Dict[bytes, bool]) -> bool:
    known = holders.get(folder)
    if known is None:
        known = kinds.get(folder, "d") == "d" and _held(
            folder.rpartition(b"/")[0], kinds, holders
        )
        holders[folder] = known
    return known
