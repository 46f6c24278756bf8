"""
File contents on their way: one stream of records, without a question per file.

A record is a line of JSON, `[path, offset]`, then segments, each an offset and a
length in 16 bytes and that much data, so that holes stay holes; then a segment
of length 0, and `+` with the SHA-256 of the whole file, or `-` with 32 bytes of
nothing if the file could not be sent as it was announced. Records are packed
into D frames, many small files in one.

An *offset* above 0 goes on where the receiver has got to: it had offered what
it has, with the hash of that, and the sender found its own file to begin so.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import queue
import stat
import struct
import threading
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

from .manifest import BLOCK, Alive, Entry, Hostile, raw, show, state, text
from .tree import remove
from .wire import CHUNK

SEGMENT = struct.Struct(">QQ")
END = struct.Struct(">QQ1s32s")
SMALL = CHUNK
# The partial of a file above this size is worth keeping when the line breaks.
WORTH_KEEPING = 8 << 20
LONGEST_HEAD = 1 << 18
ZEROS = bytes(BLOCK)
# Files above this size are hashed by a thread beside the one that moves them.
WORTH_A_THREAD = 4 << 20


Moved = Callable[[int], object]


class Offer(NamedTuple):
    """
    What the receiver of a file has of it already: *offset* bytes hashing to *sha*.

    *whole* means that these bytes are not a partial, but a file in its place.
    """

    entry: Entry
    offset: int = 0
    sha: bytes = b""
    whole: bool = False


class Sender:
    """
    Sends files from *base*; *write* sends one frame's worth of the stream.

    *moved* is told how many bytes went out or turned out not to be needed.
    """

    def __init__(
        self,
        base: bytes,
        write: Callable[[bytes], None],
        moved: Moved = lambda count: None,
    ) -> None:
        self._base = os.path.join(base, b"")
        self._write = write
        self._moved = moved
        self._batch = bytearray()

    def send(self, offer: Offer) -> Optional[Tuple[os.stat_result, bytes]]:
        """
        Send what the receiver lacks of a file; return its state and hash.

        Return None if the file is not, or does not stay, what its entry says.
        """
        entry = offer.entry
        try:
            fd = os.open(
                self._base + entry.path,
                os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC,
            )
        except OSError:
            self._batch += _head(entry.path, 0)
            return self._finish(None, None)
        try:
            st = os.fstat(fd)
            if not stat.S_ISREG(st.st_mode) or (st.st_size, st.st_mtime_ns) != (
                entry.size,
                entry.mtime_ns,
            ):
                self._batch += _head(entry.path, 0)
                return self._finish(None, None)
            if st.st_size <= SMALL:
                sha = self._small(fd, st, offer)
            else:
                sha = self._large(fd, st, offer)
            if state(os.fstat(fd)) != state(st):
                sha = None
            return self._finish(st, sha)
        finally:
            os.close(fd)

    def flush(self) -> None:
        """Send what is still waiting for more."""
        if self._batch:
            self._write(bytes(self._batch))
            self._batch.clear()

    def _small(self, fd: int, st: os.stat_result, offer: Offer) -> Optional[bytes]:
        data = os.read(fd, st.st_size + 1)
        if len(data) != st.st_size:
            self._batch += _head(offer.entry.path, 0)
            return None
        sha = hashlib.sha256(data).digest()
        if data and offer.offset == len(data) and offer.sha == sha:
            self._batch += _head(offer.entry.path, len(data))
        else:
            self._batch += _head(offer.entry.path, 0)
            if data:
                self._batch += SEGMENT.pack(0, len(data))
                self._batch += data
        self._moved(len(data))
        return sha

    def _large(self, fd: int, st: os.stat_result, offer: Offer) -> Optional[bytes]:
        size = st.st_size
        start, whole = self._agreed(fd, size, offer)
        self._batch += _head(offer.entry.path, start)
        hasher = Hasher(whole, threaded=size - start > WORTH_A_THREAD)
        at = start
        try:
            for begin, end in _data(fd, start, size):
                hasher.zeros(begin - at, self._moved)
                at = begin
                while at < end:
                    block = os.pread(fd, min(CHUNK - 64, end - at), at)
                    if not block:
                        return None
                    hasher.update(block)
                    self._batch += SEGMENT.pack(at, len(block))
                    self._batch += block
                    self.flush()
                    at += len(block)
                    self._moved(len(block))
            hasher.zeros(size - at, self._moved)
        finally:
            sha = hasher.digest()
        return sha

    def _agreed(self, fd: int, size: int, offer: Offer) -> Tuple[int, Any]:
        whole = hashlib.sha256()
        if not 0 < offer.offset <= size:
            return 0, whole
        at = 0
        while at < offer.offset:
            block = os.pread(fd, min(BLOCK, offer.offset - at), at)
            if not block:
                return 0, hashlib.sha256()
            whole.update(block)
            at += len(block)
            self._moved(0)
        if whole.digest() != offer.sha:
            return 0, hashlib.sha256()
        self._moved(at)
        return at, whole

    def _finish(
        self, st: Optional[os.stat_result], sha: Optional[bytes]
    ) -> Optional[Tuple[os.stat_result, bytes]]:
        status = b"-" if sha is None else b"+"
        self._batch += END.pack(0, 0, status, sha or bytes(32))
        if len(self._batch) >= CHUNK:
            self.flush()
        if st is None or sha is None:
            return None
        return st, sha


class Landed(NamedTuple):
    """
    A file that has come whole: *name* in the staging directory, open as *fd*.

    Mode and times are still to be set.
    Without a name it was there already, and only its hash has come.
    """

    entry: Entry
    fd: int
    name: Optional[bytes]


class Receiver:
    """
    Receives files into a staging directory, and hands each one on when whole.

    Files above *keep* bytes have names there that the next attempt finds again.
    """

    def __init__(self, staging: bytes, keep: int = WORTH_KEEPING) -> None:
        os.makedirs(staging, exist_ok=True)
        self.fd = os.open(staging, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._keep = keep
        self._kept: Dict[bytes, Any] = {}
        self.bad: List[bytes] = []

    def offer(self, entry: Entry, alive: Alive = lambda: None) -> Offer:
        """Say what an earlier attempt has left here of this file."""
        if entry.size <= self._keep:
            return Offer(entry)
        try:
            fd = os.open(
                partial_name(entry), os.O_RDONLY | os.O_NOFOLLOW, dir_fd=self.fd
            )
        except OSError:
            return Offer(entry)
        try:
            whole = hashlib.sha256()
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
            head = flow.line()
            if head is None:
                break
            path, start = _read_head(head)
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

    def sweep(self) -> None:
        """Remove what no later attempt can use."""
        for name in os.listdir(self.fd):
            if not name.startswith("partial-"):
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
        lasting = entry.size > self._keep
        name = partial_name(entry) if lasting else b"small"
        if not start:
            # Never into a file that an older attempt still has open.
            remove(self.fd, name)
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
        flags |= 0 if start else os.O_CREAT | os.O_EXCL
        fd = os.open(name, flags, 0o600, dir_fd=self.fd)
        try:
            whole = self._kept.pop(entry.path, None)
            if not start or whole is None:
                whole = hashlib.sha256()
            else:
                moved(start)
            sha = self._body(flow, entry, start, fd, whole, moved)
            if sha is None or (entry.sha is not None and sha != entry.sha):
                remove(self.fd, name)
                self.bad.append(entry.path)
                return
            if entry.size != os.fstat(fd).st_size:
                os.ftruncate(fd, entry.size)
            land(Landed(entry._replace(sha=sha), fd, name))
        finally:
            os.close(fd)

    def _body(
        self,
        flow: Inflow,
        entry: Entry,
        start: int,
        fd: int,
        whole: Any,
        moved: Moved,
    ) -> Optional[bytes]:
        hasher = Hasher(whole, threaded=entry.size - start > WORTH_A_THREAD)
        at = start
        try:
            while True:
                begin, length = SEGMENT.unpack(flow.exactly(SEGMENT.size))
                if not length:
                    break
                if begin < at or begin + length > entry.size:
                    raise Hostile("%s overflows" % show(entry.path))
                hasher.zeros(begin - at, moved)
                at = begin
                while length:
                    piece = flow.some(length)
                    hasher.update(piece)
                    _write(fd, piece, at)
                    at += len(piece)
                    length -= len(piece)
                    moved(len(piece))
            ok = flow.exactly(1) == b"+"
            told = flow.exactly(32)
            if ok:
                hasher.zeros(entry.size - at, moved)
        finally:
            sha = hasher.digest()
        return sha if ok and sha == told else None


class Inflow:
    """The D frames of a stream, as one sequence of bytes that a Z frame ends."""

    def __init__(self, frames: Callable[[], Tuple[bytes, bytes]]) -> None:
        self._frames = frames
        self._data = b""
        self._at = 0

    def line(self) -> Optional[bytes]:
        """Return the next line without its end; None at the end of the stream."""
        while True:
            end = self._data.find(b"\n", self._at)
            if end >= 0:
                line = self._data[self._at : end]
                self._at = end + 1
                return line
            if len(self._data) - self._at > LONGEST_HEAD:
                raise Hostile("a line without an end")
            if not self._more():
                if self._at < len(self._data):
                    raise Hostile("the stream ends within a record")
                return None

    def exactly(self, count: int) -> bytes:
        """Return so many bytes."""
        while len(self._data) - self._at < count:
            if not self._more():
                raise Hostile("the stream ends within a record")
        piece = self._data[self._at : self._at + count]
        self._at += count
        return piece

    def some(self, most: int) -> bytes:
        """Return at least one byte and at most so many."""
        if self._at >= len(self._data) and not self._more():
            raise Hostile("the stream ends within a record")
        piece = self._data[self._at : self._at + most]
        self._at += len(piece)
        return piece

    def _more(self) -> bool:
        while True:
            kind, payload = self._frames()
            if kind == b"Z":
                return False
            if kind != b"D":
                raise Hostile("a %r frame within a stream" % kind)
            if payload:
                break
        self._data = self._data[self._at :] + payload
        self._at = 0
        return True


class Hasher:
    """A SHA-256 under way, in a thread of its own for what is worth one."""

    def __init__(self, whole: Any, *, threaded: bool) -> None:
        self._whole = whole
        self._queue: Optional[queue.Queue[Optional[bytes]]] = None
        if threaded:
            self._queue = queue.Queue(16)
            self._thread = threading.Thread(target=self._work, args=(self._queue,))
            self._thread.start()

    def update(self, data: bytes) -> None:
        """Go on with these bytes."""
        if self._queue is None:
            self._whole.update(data)
        else:
            self._queue.put(data)

    def zeros(self, count: int, moved: Moved) -> None:
        """Go on with so many zero bytes: a hole. It is told as moved."""
        while count > 0:
            moved(min(count, BLOCK))
            self.update(ZEROS if count >= BLOCK else bytes(count))
            count -= BLOCK

    def digest(self) -> bytes:
        """Return the hash; the thread ends."""
        if self._queue is not None:
            self._queue.put(None)
            self._thread.join()
            self._queue = None
        digest: bytes = self._whole.digest()
        return digest

    def _work(self, blocks: queue.Queue[Optional[bytes]]) -> None:
        while True:
            block = blocks.get()
            if block is None:
                return
            self._whole.update(block)


def partial_name(entry: Entry) -> bytes:
    """Return the name under which the partial of exactly this file is kept."""
    key = b"%b\0%d %d" % (entry.path, entry.size, entry.mtime_ns)
    return b"partial-" + hashlib.sha256(key).hexdigest()[:40].encode("ascii")


def _head(path: bytes, start: int) -> bytes:
    return json.dumps([text(path), start], separators=(",", ":")).encode() + b"\n"


def _read_head(line: bytes) -> Tuple[bytes, int]:
    try:
        path, start = json.loads(line)
        return raw(path), int(start)
    except (ValueError, TypeError, AttributeError) as error:
        raise Hostile("no record: %r" % line[:80]) from error


def _data(fd: int, start: int, size: int) -> Iterator[Tuple[int, int]]:
    """Yield where a file has data, as begin and end."""
    if not hasattr(os, "SEEK_DATA") or os.fstat(fd).st_blocks * 512 >= size:
        yield start, size
        return
    at = start
    while at < size:
        try:
            begin = os.lseek(fd, at, os.SEEK_DATA)
            end = os.lseek(fd, begin, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            # The file system does not know about holes.
            yield at, size
            return
        yield begin, min(end, size)
        at = end


def _write(fd: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, at)
        view = view[count:]
        at += count
