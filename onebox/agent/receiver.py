"""Receive the contents of files, and keep what breaks off for the next attempt."""

from __future__ import annotations

import contextlib
import hashlib
import os
from typing import (
    Callable,
    Dict,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Tuple,
)

from . import blocks
from .blocks import BLOCK, DIGEST, Data, Sum
from .index import Alive, Index, state
from .manifest import Entry
from .names import Hostile, show
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
        os.makedirs(staging, exist_ok=True)
        self.fd = os.open(staging, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._base = os.path.join(base, b"")
        self._keep = keep
        self._blocks = blocks.MOST
        self._kept: Dict[bytes, Sum] = {}
        self._old: Dict[bytes, Tuple[int, int, int]] = {}
        # What earlier attempts have left.
        self._left = set(map(os.fsencode, os.listdir(self.fd)))
        self.bad: List[bytes] = []

    def offer(self, entry: Entry, alive: Alive = lambda: None) -> Offer:
        """Say what an earlier attempt has left here of this file."""
        if entry.size <= self._keep or not self._left:
            return Offer(entry)
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
        if entry.size <= blocks.BIG or (offer.offset and not offer.whole):
            return offer
        try:
            st = os.lstat(self._base + entry.path)
        except OSError:
            return offer
        digests = known.blocks(entry.path, st)
        self._blocks -= len(digests) // DIGEST
        if not digests or self._blocks < 0:
            return offer
        self._old[entry.path] = state(st)
        return offer._replace(blocks=digests)

    def receive(
        self,
        frames: Callable[[], Tuple[bytes, bytes]],
        offers: Dict[bytes, Offer],
        land: Callable[[Landed], None],
        moved: Moved = lambda count: None,
    ) -> None:
        """
        Take in the records of these files, up to the Z frame.

        What did not come as promised is in `bad` afterwards.

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
                self._one(flow, offer, start, land, moved)
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
    ) -> None:
        entry = offer.entry
        name = partial_name(entry) if entry.size > self._keep else b"small"
        fd = self._create(name) if not start else self._again(name, entry, start)
        try:
            if entry.size <= SMALL and not start:
                sha, sums = _small(flow, entry, fd, moved), b""
            else:
                sha, sums = self._large(flow, offer, start, fd, moved)
            if sha is None or (entry.sha is not None and sha != entry.sha):
                remove(self.fd, name)
                self.bad.append(entry.path)
                return
            land(Landed(entry._replace(sha=sha), fd, name, sums))
        finally:
            os.close(fd)

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
        self, flow: Inflow, offer: Offer, start: int, fd: int, moved: Moved
    ) -> Tuple[Optional[bytes], bytes]:
        entry = offer.entry
        whole = self._kept.pop(entry.path, None)
        if not start or whole is None:
            whole = Sum(entry.size)
        else:
            moved(start)
        with self._older(offer) as older:
            sha = self._body(flow, offer, start, fd, older, whole, moved)
        if entry.size != os.fstat(fd).st_size:
            os.ftruncate(fd, entry.size)
        return sha, whole.blocks

    def _body(
        self,
        flow: Inflow,
        offer: Offer,
        start: int,
        fd: int,
        older: int,
        whole: Sum,
        moved: Moved,
    ) -> Optional[bytes]:
        entry = offer.entry
        hasher = Hasher(whole, threaded=entry.size - start > WORTH_A_THREAD)
        at = start
        ok = True
        try:
            while True:
                begin, length = SEGMENT.unpack(flow.exactly(SEGMENT.size))
                if not length:
                    break
                same = length & SAME
                length &= ~SAME
                if begin < at or begin + length > entry.size:
                    raise Hostile("%s overflows" % show(entry.path))
                hasher.zeros(begin - at, moved)
                at = begin
                if same:
                    hasher.known(self._known(offer, at, length))
                    ok = _copy(older, fd, at, length, moved) and ok
                    at += length
                    length = 0
                while length:
                    piece = flow.some(length)
                    hasher.update(piece)
                    _write(fd, piece, at)
                    at += len(piece)
                    length -= len(piece)
                    moved(len(piece))
            status, told = ENDED.unpack(flow.exactly(ENDED.size))
            if status == b"+":
                hasher.zeros(entry.size - at, moved)
        finally:
            sha = hasher.digest()
        if older >= 0 and state(os.fstat(older)) != self._old[entry.path]:
            ok = False
        return sha if ok and status == b"+" and sha == told else None

    def _known(self, offer: Offer, begin: int, length: int) -> bytes:
        """Return the hashes of what is to be taken from the older file."""
        first = begin // BLOCK
        count = -(-length // BLOCK)
        digests = offer.blocks[first * DIGEST : (first + count) * DIGEST]
        size = self._old.get(offer.entry.path, (0, 0, 0))[0]
        # The last block of both may be shorter, if it ends at the same place.
        ends = begin + length == offer.entry.size == size or not length % BLOCK
        if begin % BLOCK or begin + length > size or not ends:
            raise Hostile("%s is not here" % show(offer.entry.path))
        return digests

    @contextlib.contextmanager
    def _older(self, offer: Offer) -> Iterator[int]:
        """Give the file that is in its place, or -1."""
        if not offer.blocks:
            yield -1
            return
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        fd = os.open(self._base + offer.entry.path, flags)
        try:
            yield fd
        finally:
            os.close(fd)


def _small(flow: Inflow, entry: Entry, fd: int, moved: Moved) -> Optional[bytes]:
    """Take in a file that comes in one piece."""
    data = memoryview(b"")
    begin, length = SEGMENT.unpack(flow.exactly(SEGMENT.size))
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


def _copy(source: int, target: int, at: int, length: int, moved: Moved) -> bool:
    """Copy what has stayed the same; say whether all of it was there."""
    end = at + length
    for begin, after in blocks.filled(source, at, end):
        moved(begin - at)
        at = begin
        while at < after:
            count = blocks.copy(source, target, at, after - at)
            if not count:
                return False
            at += count
            moved(count)
    moved(end - at)
    return True


def _write(fd: int, data: Data, at: int) -> None:
    count = os.pwrite(fd, data, at)
    while count < len(data):
        count += os.pwrite(fd, memoryview(data)[count:], at + count)
