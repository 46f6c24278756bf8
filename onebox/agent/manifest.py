"""
What a tree of files consists of, and how one end tells the other.

Two trees are equal when path, type, mode, link target, size and SHA-256 of
everything in them are; times are carried along, but not compared. Names are
bytes, whatever the locale.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import struct
import time
import zlib
from typing import (
    Any,
    Callable,
    Dict,
    Iterable,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Tuple,
)

from .wire import CHUNK

BLOCK = 1 << 20
ROWS = 256
# Far above what 256 rows of the longest possible names take.
LONGEST_LINE = 1 << 24
# One object for each mode, not one for each file.
MODES: Dict[int, int] = {}
Alive = Callable[[], None]


class Hostile(Exception):
    """What the other end sent breaks the rules, by mistake or on purpose."""


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
        if not _reached(prefix, path.rpartition(b"/")[0], real):
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
        with os.scandir(os.path.join(base, folder) if folder else base) as items:
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
        whole.update(
            b"%b\0%b%o %d %b\0%b\0"
            % (
                entry.path,
                entry.kind.encode("ascii"),
                entry.mode,
                entry.size,
                (entry.sha or b"").hex().encode("ascii"),
                entry.target,
            )
        )
    return whole.hexdigest()


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
    last = b""
    for entry in entries:
        path = entry.path
        if path <= last:
            raise Hostile("%s comes twice or out of order" % show(path))
        last = path
        check_path(path)
        if entry.kind not in ("f", "d", "l"):
            raise Hostile("%s is a device or worse" % show(path))
        if not _held(path.rpartition(b"/")[0], kinds, holders):
            raise Hostile("%s leads through something that is no folder" % show(path))
        if tops is not None and not _within(path, tops):
            raise Hostile("%s was not asked for" % show(path))


def check_path(path: bytes) -> None:
    """Refuse a path that is absolute, climbs, or is no path. Raises `Hostile`."""
    if b"\0" in path or any(part in (b"", b".", b"..") for part in path.split(b"/")):
        raise Hostile("%s is no path inside the folder" % show(path))


def show(path: bytes) -> str:
    """Return a path as it can be shown on any terminal, on one line."""
    text = path.decode("utf-8", "backslashreplace")
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def pack_entry(entry: Entry) -> List[Any]:
    """Turn an entry into what JSON can carry; `unpack_entry` is the way back."""
    return [
        text(entry.path),
        entry.kind,
        entry.mode,
        entry.size,
        entry.mtime_ns,
        text(entry.target),
        None if entry.sha is None else entry.sha.hex(),
    ]


def unpack_entry(row: Any) -> Entry:
    """Turn a row back into an entry. Raises `Hostile` if it is none."""
    try:
        path, kind, mode, size, mtime_ns, target, sha = row
        entry = Entry(
            raw(path),
            str(kind),
            MODES.setdefault(mode, mode & 0o7777),
            size + 0,
            mtime_ns + 0,
            raw(target),
            None if sha is None else bytes.fromhex(sha),
        )
    except (TypeError, ValueError, AttributeError) as error:
        raise Hostile("no entry of a manifest: %r" % (row,)) from error
    numbers = (entry.mode, entry.size, entry.mtime_ns)
    if not all(type(number) is int for number in numbers) or entry.size < 0:
        raise Hostile("no entry of a manifest: %r" % (row,))
    if abs(entry.mtime_ns) >= 1 << 63 or b"\0" in entry.target:
        raise Hostile("no entry of a manifest: %r" % (row,))
    if entry.kind == "l" and not entry.target:
        raise Hostile("%s is a link to nothing" % show(entry.path))
    return entry


def text(name: bytes) -> str:
    """Decode a name so that any bytes survive, under any locale."""
    return name.decode("utf-8", "surrogateescape")


def raw(name: str) -> bytes:
    """Return the bytes of a name that `text` has decoded."""
    return name.encode("utf-8", "surrogateescape")


def send_rows(send: Callable[[bytes, bytes], None], rows: Iterable[Any]) -> None:
    """Send any number of JSON values as compressed D frames and a Z."""
    packer = zlib.compressobj(1)
    out = bytearray()
    batch: List[Any] = []
    for row in rows:
        batch.append(row)
        if len(batch) == ROWS:
            out += packer.compress(_line(batch))
            batch = []
            if len(out) >= CHUNK:
                send(b"D", bytes(out))
                out.clear()
    out += packer.compress(_line(batch)) + packer.flush()
    send(b"D", bytes(out))
    send(b"Z", b"")


def receive_rows(receive: Callable[[], Tuple[bytes, bytes]]) -> Iterator[Any]:
    """Yield what the other end's `send_rows` sends. Raises `Hostile`."""
    unpacker = zlib.decompressobj()
    rest = b""
    try:
        while True:
            kind, payload = receive()
            if kind == b"Z":
                break
            if kind != b"D":
                raise Hostile("a %r frame among rows" % kind)
            while payload:
                rest += unpacker.decompress(payload, BLOCK)
                payload = unpacker.unconsumed_tail
                *lines, rest = rest.split(b"\n")
                for line in lines:
                    yield from json.loads(line)
                if len(rest) > LONGEST_LINE:
                    raise Hostile("a line without an end")
    except (ValueError, TypeError, zlib.error) as error:
        raise Hostile("no rows: %s" % error) from error


class Index:
    """
    Hashes remembered from earlier, like git's index.

    A hash counts as long as size, mtime, ctime and inode of its file are what
    they were. One that was written so shortly before it was read that a later
    write could carry the same time is not remembered at all.
    """

    MAGIC = b"onebox index 1\n"
    HEAD = struct.Struct(">I")
    VALUE = struct.Struct(">qqqQ32s")

    def __init__(self, file: Optional[bytes] = None) -> None:
        self._file = file
        self._since = time.time_ns()
        self._known: Dict[bytes, bytes] = {}
        self._changed = False
        if file is not None:
            self._load(file)

    def get(self, path: bytes, st: os.stat_result) -> Optional[bytes]:
        """Return the hash of a file that looks like this, if it is known."""
        value = self._known.get(path)
        if value is None or value[:32] != self._pack(st, bytes(32))[:32]:
            return None
        return value[32:]

    def put(self, path: bytes, st: os.stat_result, sha: bytes) -> None:
        """Remember a hash, unless the file is so young that it may yet change."""
        # File systems with whole seconds need two of them, the others a few ticks.
        slack = 2_000_000_000 if st.st_mtime_ns % 1_000_000_000 == 0 else 50_000_000
        if self._since - slack <= st.st_mtime_ns <= time.time_ns() + slack:
            self._changed |= self._known.pop(path, None) is not None
        else:
            self._known[path] = self._pack(st, sha)
            self._changed = True

    def keep(self, paths: Iterable[bytes]) -> None:
        """Forget all other paths."""
        wanted = set(paths)
        gone = [path for path in self._known if path not in wanted]
        for path in gone:
            del self._known[path]
        self._changed |= bool(gone)

    def save(self) -> None:
        """Write the index, whole or not at all, if anything is new in it."""
        if self._file is None or not self._changed:
            return
        fresh = self._file + b".%d" % os.getpid()
        whole = hashlib.sha256()
        with open(fresh, "wb") as out:
            for part in self._parts():
                whole.update(part)
                out.write(part)
            out.write(whole.digest())
        os.replace(fresh, self._file)
        self._changed = False

    def _parts(self) -> Iterator[bytes]:
        yield self.MAGIC
        for path, value in self._known.items():
            yield self.HEAD.pack(len(path)) + path + value

    def _load(self, file: bytes) -> None:
        try:
            with open(file, "rb") as stream:
                data = stream.read()
        except OSError:
            return
        body = memoryview(data)[:-32]
        # A damaged index costs time, never correctness: all is read anew.
        if hashlib.sha256(body).digest() != data[-32:]:
            return
        if not data.startswith(self.MAGIC):
            return
        at = len(self.MAGIC)
        while at < len(body):
            (length,) = self.HEAD.unpack_from(data, at)
            at += self.HEAD.size
            end = at + length
            self._known[data[at:end]] = data[end : end + self.VALUE.size]
            at = end + self.VALUE.size

    def _pack(self, st: os.stat_result, sha: bytes) -> bytes:
        return self.VALUE.pack(
            st.st_size, st.st_mtime_ns, st.st_ctime_ns, st.st_ino, sha
        )


def read_hash(path: bytes, alive: Alive = lambda: None) -> Tuple[os.stat_result, bytes]:
    """
    Read a file and return its state and hash.

    Raises:
        Unstable: It was written to meanwhile.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        before = os.fstat(fd)
        whole = hashlib.sha256()
        while True:
            block = os.read(fd, BLOCK)
            if not block:
                break
            whole.update(block)
            alive()
        if state(os.fstat(fd)) != state(before):
            raise Unstable(show(path))
        return before, whole.digest()
    finally:
        os.close(fd)


class Unstable(Exception):
    """A file was written to while it was read."""


def state(st: os.stat_result) -> Tuple[int, int, int]:
    """Return what changes whenever a file is written to."""
    return st.st_size, st.st_mtime_ns, st.st_ctime_ns


def _look(
    full: bytes, path: bytes, index: Index, hashing: bool, alive: Alive, found: Scan
) -> None:
    st = os.lstat(full)
    mode = stat.S_IMODE(st.st_mode)
    if stat.S_ISREG(st.st_mode):
        sha = index.get(path, st)
        if sha is None and hashing:
            try:
                st, sha = read_hash(full, alive)
                index.put(path, st, sha)
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


def _within(path: bytes, tops: Iterable[bytes]) -> bool:
    return any(path == top or not top or path.startswith(top + b"/") for top in tops)


def _line(batch: List[Any]) -> bytes:
    return json.dumps(batch, separators=(",", ":")).encode("ascii") + b"\n"
