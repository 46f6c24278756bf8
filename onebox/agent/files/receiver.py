"""Receive the contents of files, and keep what breaks off for the next attempt."""

from __future__ import annotations

import contextlib
import hashlib
import os
from typing import (
    Callable,
    Dict,
    List,
    NamedTuple,
    Optional,
    Set,
    Tuple,
)

from ..file_names import Hostile, show
from . import block_hashes
from .block_hashes import BLOCK, DIGEST, Data, Sum
from .hash_index import Alive, Index, State, Unstable, read_hash, state
from .in_place import (
    FLAGS,
    Older,
    Take,
    changing_name,
    may_be_taken,
    open_changing,
    take_out,
)
from .manifest import Entry
from .stream import (
    END,
    ENDED,
    SAME,
    SEGMENT,
    SMALL,
    WORTH_A_THREAD,
    Hasher,
    Inflow,
    Moved,
    Offer,
)
from .tree import remove

# The partial of a file above this size is worth keeping when the line breaks.
WORTH_KEEPING = 8 << 20


class Landed(NamedTuple):
    """
    A file that has come whole: *name* in the staging directory, open as *fd*.

    Mode and times are still to be set. Without a name it was there already, and
    only its hash has come. *blocks* are the hashes of a big file's blocks.
    """

    entry: Entry
    fd: int
    name: Optional[bytes]
    blocks: bytes = b""


class Receiver:
    """
    Receives files into a staging directory, and hands each one on when whole.

    Files above *keep* bytes have names there that the next attempt finds again.
    What stays the same in a big file is taken from the one below *base*.
    """

    def __init__(
        self, staging: bytes, base: bytes = b"", keep: int = WORTH_KEEPING
    ) -> None:
        os.makedirs(staging, 0o700, exist_ok=True)
        self._staging = os.path.join(staging, b"")
        self.fd = os.open(staging, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._base = os.path.join(base, b"")
        self._keep = keep
        self._blocks = block_hashes.MOST
        self._kept: Dict[bytes, Sum] = {}
        self._old: Dict[bytes, State] = {}
        # Of these it is known which blocks the older file has: it is in the
        # staging directory already, or may be taken there.
        self._changing: Set[bytes] = set()
        self._takeable: Set[bytes] = set()
        # What earlier attempts have left.
        self._left = set(map(os.fsencode, os.listdir(self.fd)))
        self.bad: List[bytes] = []

    def offer(self, entry: Entry, alive: Alive = lambda: None) -> Offer:
        """Say what an earlier attempt has left here of this file."""
        if entry.size <= self._keep or not self._left:
            return Offer(entry)
        if entry.size > block_hashes.BIG and changing_name(entry.path) in self._left:
            return self._changing_offer(entry, alive)
        name = partial_name(entry)
        if name not in self._left:
            return Offer(entry)
        try:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=self.fd)
        except OSError:
            return Offer(entry)
        try:
            whole = Sum(entry.size)
            at = 0
            while at < entry.size:
                block = os.pread(fd, min(BLOCK, entry.size - at), at)
                if not block:
                    break
                whole.update(block)
                at += len(block)
                alive()
        finally:
            os.close(fd)
        self._kept[entry.path] = whole
        return Offer(entry, at, whole.digest())

    def compared(self, offer: Offer, known: Index) -> Offer:
        """Add to an offer what is known of the blocks of the file in its place."""
        entry = offer.entry
        begun = offer.blocks or (offer.offset and not offer.whole)
        if entry.size <= block_hashes.BIG or begun:
            return offer
        try:
            st = os.lstat(self._base + entry.path)
        except OSError:
            return offer
        if may_be_taken(st):
            self._takeable.add(entry.path)
        return self._with_blocks(offer, st, known.blocks(entry.path, st))

    def room(self, offer: Offer) -> int:
        """Return how much more of the disk a file takes, at least."""
        path, size = offer.entry.path, offer.entry.size
        if not offer.blocks:
            return size - offer.offset
        if path in self._changing or path in self._takeable:
            return max(size - self._old[path][0], 0)
        return size

    def receive(
        self,
        frames: Callable[[], Tuple[bytes, bytes]],
        offers: Dict[bytes, Offer],
        land: Callable[[Landed], None],
        moved: Moved = lambda count: None,
        take: Optional[Take] = None,
    ) -> None:
        """
        Take in the records of these files, up to the Z frame.

        What did not come as promised is in `bad` afterwards. With *take*, a big
        file is taken out of its place and changed, where that is possible.

        Raises:
            Hostile: What comes was not asked for, or makes no sense.
        """
        flow = Inflow(frames)
        left = dict(offers)
        while True:
            begun = flow.head()
            if begun is None:
                break
            path, start = begun
            offer = left.pop(path, None)
            if offer is None or start not in (0, offer.offset):
                raise Hostile("%s was not asked for" % show(path))
            if start and offer.whole:
                self._confirm(flow, offer, land, moved)
            else:
                self._one(flow, offer, start, land, moved, take)
        self.bad.extend(left)

    def clean(self) -> None:
        """Remove everything that is in the staging directory."""
        for name in os.listdir(self.fd):
            remove(self.fd, os.fsencode(name))

    def close(self) -> None:
        """Close the staging directory; what is in it stays."""
        os.close(self.fd)

    def _confirm(
        self,
        flow: Inflow,
        offer: Offer,
        land: Callable[[Landed], None],
        moved: Moved,
    ) -> None:
        _, length, status, sha = END.unpack(flow.exactly(END.size))
        if length or status != b"+" or sha != offer.sha:
            raise Hostile("%s is not what was offered" % show(offer.entry.path))
        moved(offer.entry.size)
        land(Landed(offer.entry._replace(sha=sha), -1, None))

    def _one(
        self,
        flow: Inflow,
        offer: Offer,
        start: int,
        land: Callable[[Landed], None],
        moved: Moved,
        take: Optional[Take],
    ) -> None:
        entry = offer.entry
        name = partial_name(entry) if entry.size > self._keep else b"small"
        begin, length = SEGMENT.unpack(flow.exactly(SEGMENT.size))
        if not length and offer.blocks:
            # It cannot be sent as it was announced: what is in its place stays.
            flow.exactly(ENDED.size)
            self.bad.append(entry.path)
            return
        older = self._older(offer, take)
        try:
            if older is not None and older.name:
                name, fd = older.name, os.dup(older.fd)
            else:
                fd = self._again(name, entry, start) if start else self._create(name)
            try:
                first = begin, length
                if entry.size <= SMALL and not start:
                    sha, sums = _small(flow, entry, fd, first, moved), b""
                else:
                    sha, sums = self._large(flow, offer, start, fd, older, first, moved)
                changed = older is not None and bool(older.name)
                if sha is None or (entry.sha is not None and sha != entry.sha):
                    # Of an older one most may be right: the next attempt will see.
                    if not changed:
                        remove(self.fd, name)
                    self.bad.append(entry.path)
                    return
                if changed:
                    # Its times must not reach the disk before its contents.
                    os.fsync(fd)
                land(Landed(entry._replace(sha=sha), fd, name, sums))
            finally:
                os.close(fd)
        finally:
            if older is not None:
                os.close(older.fd)

    def _create(self, name: bytes) -> int:
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_CREAT | os.O_EXCL
        try:
            return os.open(name, flags, 0o600, dir_fd=self.fd)
        except FileExistsError:
            # Never into a file that an older attempt still has open.
            remove(self.fd, name)
            return os.open(name, flags, 0o600, dir_fd=self.fd)

    def _again(self, name: bytes, entry: Entry, start: int) -> int:
        # What was whole may have a mode already that lets nobody write.
        flags = os.O_RDWR if start < entry.size else os.O_RDONLY
        return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.fd)

    def _large(
        self,
        flow: Inflow,
        offer: Offer,
        start: int,
        fd: int,
        older: Optional[Older],
        first: Tuple[int, int],
        moved: Moved,
    ) -> Tuple[Optional[bytes], bytes]:
        entry = offer.entry
        whole = self._kept.pop(entry.path, None)
        if not start or whole is None:
            whole = Sum(entry.size)
        else:
            moved(start)
        sha = self._body(flow, entry, start, fd, older, first, whole, moved)
        if entry.size != os.fstat(fd).st_size:
            os.ftruncate(fd, entry.size)
        return sha, whole.blocks

    def _body(
        self,
        flow: Inflow,
        entry: Entry,
        start: int,
        fd: int,
        older: Optional[Older],
        first: Tuple[int, int],
        whole: Sum,
        moved: Moved,
    ) -> Optional[bytes]:
        hasher = Hasher(whole, threaded=entry.size - start > WORTH_A_THREAD)
        at = start
        ok = True
        # A hole is no hole where something was before.
        may_skip = older is None or not older.name
        try:
            begin, length = first
            while length:
                same = length & SAME
                length &= ~SAME
                if begin < at or begin + length > entry.size:
                    raise Hostile("%s overflows" % show(entry.path))
                ok = ok and (begin == at or may_skip)
                hasher.zeros(begin - at, moved)
                at = begin
                if same:
                    if older is None:
                        raise Hostile("%s is not here" % show(entry.path))
                    hasher.known(older.known(at, length))
                    ok = older.keep(fd, at, length, moved) and ok
                    at += length
                    length = 0
                while length:
                    piece = flow.some(length)
                    hasher.update(piece)
                    _write(fd, piece, at)
                    at += len(piece)
                    length -= len(piece)
                    moved(len(piece))
                begin, length = SEGMENT.unpack(flow.exactly(SEGMENT.size))
            status, told = ENDED.unpack(flow.exactly(ENDED.size))
            if status == b"+":
                ok = ok and (at == entry.size or may_skip)
                hasher.zeros(entry.size - at, moved)
        finally:
            sha = hasher.digest()
        ok = ok and (older is None or older.is_sound())
        return sha if ok and status == b"+" and sha == told else None

    def _older(self, offer: Offer, take: Optional[Take]) -> Optional[Older]:
        """Return the file of which the blocks were offered, if any were."""
        if not offer.blocks:
            return None
        path = offer.entry.path
        file, was = self._base + path, self._old[path]
        if path in self._changing:
            name = changing_name(path)
            return Older(open_changing(self.fd, name), offer, was, name)
        if take is not None and path in self._takeable:
            with contextlib.suppress(OSError):
                return take_out(file, self.fd, offer, was, take)
        return Older(os.open(file, os.O_RDONLY | FLAGS), offer, was)

    def _changing_offer(self, entry: Entry, alive: Alive) -> Offer:
        """Say what an earlier attempt has left of a file that was being changed."""
        name = changing_name(entry.path)
        try:
            os.close(open_changing(self.fd, name))
            found = read_hash(self._staging + name, alive)
        except (OSError, Unstable):
            remove(self.fd, name)
            return Offer(entry)
        self._changing.add(entry.path)
        return self._with_blocks(Offer(entry), found.st, found.blocks)

    def _with_blocks(self, offer: Offer, st: os.stat_result, digests: bytes) -> Offer:
        self._blocks -= len(digests) // DIGEST
        if not digests or self._blocks < 0:
            return offer
        self._old[offer.entry.path] = state(st)
        return offer._replace(blocks=digests)


def _small(
    flow: Inflow, entry: Entry, fd: int, first: Tuple[int, int], moved: Moved
) -> Optional[bytes]:
    """Take in a file that comes in one piece."""
    data = memoryview(b"")
    begin, length = first
    if length:
        if begin or length != entry.size:
            raise Hostile("%s is not as long as it was" % show(entry.path))
        data = flow.exactly(length)
        if any(SEGMENT.unpack(flow.exactly(SEGMENT.size))):
            raise Hostile("%s overflows" % show(entry.path))
        _write(fd, data, 0)
        moved(length)
    status, told = ENDED.unpack(flow.exactly(ENDED.size))
    sha = hashlib.sha256(data).digest()
    whole = status == b"+" and len(data) == entry.size
    return sha if whole and sha == told else None


def partial_name(entry: Entry) -> bytes:
    """Return the name under which the partial of exactly this file is kept."""
    key = b"%b\0%d %d" % (entry.path, entry.size, entry.mtime_ns)
    return b"partial-" + hashlib.sha256(key).hexdigest()[:40].encode("ascii")


def _write(fd: int, data: Data, at: int) -> None:
    count = os.pwrite(fd, data, at)
    while count < len(data):
        count += os.pwrite(fd, memoryview(data)[count:], at + count)
