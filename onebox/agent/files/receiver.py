"""Receive files into a staging directory; keep partial files for the next attempt."""

from __future__ import annotations

import contextlib
import hashlib
import os
from typing import Callable, Dict, List, NamedTuple, Optional, Set, Tuple

from ..file_names import Hostile, show
from . import block_hashes
from .block_hashes import DIGEST, HashSum
from .content_reader import ContentReader, Segment, read_segment
from .content_stream import END, SMALL, STATUS, ContentStream, FileOffer, Moved
from .folder_writer import remove
from .hash_index import Alive, FileState, Index, Unstable, file_state, hash_file
from .manifest import Entry
from .previous_version import (
    FLAGS,
    MoveToStaging,
    PreviousVersion,
    can_move,
    changing_name,
    move_to_staging,
    open_changing,
)

# If a file is above this size, the part of it that has arrived is kept when the
# connection breaks.
WORTH_KEEPING = 8 << 20


class Landed(NamedTuple):
    """
    A file that was received completely, and is still in the staging directory.

    *name* is the file's name there, and *fd* its open descriptor. Its mode and times
    are not set yet. If *name* is None, the file was in its place already and only its
    hash was received; then *fd* is -1. *blocks* are the block hashes of a big file.
    """

    entry: Entry
    fd: int
    name: Optional[bytes]
    blocks: bytes = b""


Land = Callable[[Landed], None]


class Receiver:
    """
    Receives files into a staging directory and hands on each complete file.

    Args:
        base: The folder that has the previous versions of the files.

        keep: A file of more than this many bytes gets a name in the staging directory
            by which the next attempt finds it.
    """

    def __init__(
        self, staging: bytes, base: bytes = b"", keep: int = WORTH_KEEPING
    ) -> None:
        os.makedirs(staging, 0o700, exist_ok=True)
        self._staging = os.path.join(staging, b"")
        self.fd = os.open(staging, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._base = os.path.join(base, b"")
        self._keep = keep
        self._blocks_left = block_hashes.MOST_BLOCKS
        # Maps the path of each partial file that was offered to the hash sum of its
        # bytes.
        self._partial_sums: Dict[bytes, HashSum] = {}
        # `_previous` maps the path of a previous version to the state in which its
        # block hashes were offered. If the path is in `_changing`, that version is in
        # the staging directory already. If the path is in `_movable`, that version can
        # be moved there.
        self._previous: Dict[bytes, FileState] = {}
        self._changing: Set[bytes] = set()
        self._movable: Set[bytes] = set()
        self._found_names = set(map(os.fsencode, os.listdir(self.fd)))
        self.bad: List[bytes] = []

    def needed(
        self,
        entry: Entry,
        mine: Optional[Entry],
        index: Index,
        alive: Alive = lambda: None,
    ) -> Optional[FileOffer]:
        """
        Return the offer for the file *entry*, or None if the file need not be sent.

        Args:
            mine: The entry that is at the file's path now, or None if nothing is there.
        """
        sha = None
        if mine is not None and (mine.kind, mine.size) == ("f", entry.size):
            sha = mine.sha or self._hash(entry.path, index, alive)
        if sha is None or (entry.sha is not None and entry.sha != sha):
            offer = self.offer(entry, alive)
        elif entry.sha is None:
            # The hash of the sender's file is not known here. So the receiver offers
            # its own file, and the sender compares the two.
            offer = FileOffer(entry, entry.size, sha, whole=True)
        else:
            return None
        return offer if mine is None else self.with_blocks(offer, index)

    def offer(self, entry: Entry, alive: Alive = lambda: None) -> FileOffer:
        """
        Return the offer for a file, with the bytes that an earlier attempt has
        received.
        """
        if entry.size <= self._keep or not self._found_names:
            return FileOffer(entry)
        changing = changing_name(entry.path) in self._found_names
        if entry.size > block_hashes.BIG and changing:
            return self._changing_offer(entry, alive)
        name = partial_name(entry)
        if name not in self._found_names:
            return FileOffer(entry)
        try:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=self.fd)
        except OSError:
            return FileOffer(entry)
        try:
            hash_sum, at = block_hashes.hash_beginning(
                fd, entry.size, entry.size, alive
            )
        finally:
            os.close(fd)
        self._partial_sums[entry.path] = hash_sum
        return FileOffer(entry, at, hash_sum.digest())

    def with_blocks(self, offer: FileOffer, index: Index) -> FileOffer:
        """
        Return *offer* with the block hashes of the file that is at its path now.

        *offer* is returned as it is for a small file, or if an earlier attempt has
        begun to receive the file, or if *index* does not have the block hashes.
        """
        entry = offer.entry
        begun = offer.blocks or (offer.offset and not offer.whole)
        if entry.size <= block_hashes.BIG or begun:
            return offer
        try:
            st = os.lstat(self._base + entry.path)
        except OSError:
            return offer
        if can_move(st):
            self._movable.add(entry.path)
        return self._add_blocks(offer, st, index.blocks(entry.path, st))

    def disk_needed(self, offer: FileOffer) -> int:
        """Return the least number of bytes of disk space that a file still needs."""
        path, size = offer.entry.path, offer.entry.size
        if not offer.blocks:
            return size - offer.offset
        if path in self._changing or path in self._movable:
            return max(size - self._previous[path][0], 0)
        return size

    def receive(
        self,
        frames: Callable[[], Tuple[bytes, bytes]],
        offers: Dict[bytes, FileOffer],
        land: Land,
        moved: Moved = lambda count: None,
        take: Optional[MoveToStaging] = None,
    ) -> None:
        """
        Receive the files of *offers*, until a Z frame ends the stream.

        The paths of files that did not arrive complete are added to `bad`.

        Args:
            land: Is called with each complete file.

            take: Moves a previous version to the staging directory, where it is
                changed. Without *take*, unchanged blocks are copied.

        Raises:
            Hostile: A record was not asked for, or breaks the format.
        """
        stream = ContentStream(frames)
        missing = dict(offers)
        while True:
            record = stream.next_record()
            if record is None:
                break
            path, start = record
            offer = missing.pop(path, None)
            if offer is None or start not in (0, offer.offset):
                raise Hostile("%s was not asked for" % show(path))
            if start and offer.whole:
                self._confirm(stream, offer, land, moved)
            else:
                self._receive_file(stream, offer, start, land, moved, take)
        self.bad.extend(missing)

    def clean(self) -> None:
        """Remove everything that is in the staging directory."""
        for name in os.listdir(self.fd):
            remove(self.fd, os.fsencode(name))

    def close(self) -> None:
        """Close the staging directory; its files stay."""
        os.close(self.fd)

    def _hash(self, path: bytes, index: Index, alive: Alive) -> Optional[bytes]:
        try:
            hashed = hash_file(self._base + path, alive)
        except (OSError, Unstable):
            return None
        index.put(path, *hashed)
        return hashed.sha

    def _confirm(
        self, stream: ContentStream, offer: FileOffer, land: Land, moved: Moved
    ) -> None:
        """
        Read the record of a file that the sender found equal to the receiver's file.
        """
        _, length, status, sha = END.unpack(stream.read(END.size))
        if length or status != b"+" or sha != offer.sha:
            raise Hostile("%s is not what was offered" % show(offer.entry.path))
        moved(offer.entry.size)
        land(Landed(offer.entry._replace(sha=sha), -1, None))

    def _receive_file(
        self,
        stream: ContentStream,
        offer: FileOffer,
        start: int,
        land: Land,
        moved: Moved,
        take: Optional[MoveToStaging],
    ) -> None:
        entry = offer.entry
        name = partial_name(entry) if entry.size > self._keep else b"small"
        first = read_segment(stream)
        if not first.length and offer.blocks:
            # The sender could not send the file, so the previous version stays.
            stream.read(STATUS.size)
            self.bad.append(entry.path)
            return
        previous = self._open_previous(offer, take)
        try:
            in_place = previous is not None and bool(previous.name)
            if previous is not None and in_place:
                name, fd = previous.name, os.dup(previous.fd)
            else:
                fd = self._reopen(name, entry, start) if start else self._create(name)
            try:
                reader = ContentReader(stream, entry, fd, moved, previous)
                sha, blocks = self._read(reader, entry, first, start, fd)
                if sha is None or (entry.sha is not None and sha != entry.sha):
                    # A file that was changed in place is kept, because most of it may
                    # be right. The next attempt compares its blocks again.
                    if not in_place:
                        remove(self.fd, name)
                    self.bad.append(entry.path)
                    return
                if in_place:
                    # The contents are flushed first, because the new mtime must not
                    # reach the disk before them.
                    os.fsync(fd)
                land(Landed(entry._replace(sha=sha), fd, name, blocks))
            finally:
                os.close(fd)
        finally:
            if previous is not None:
                os.close(previous.fd)

    def _read(
        self,
        reader: ContentReader,
        entry: Entry,
        first: Segment,
        start: int,
        fd: int,
    ) -> Tuple[Optional[bytes], bytes]:
        """
        Receive the contents of a file; return its hash and its block hashes.

        The hash is None if the file is incomplete, or if its hash is not the one that
        the sender has sent.
        """
        if entry.size <= SMALL and not start:
            return reader.read_small(first), b""
        hash_sum = self._partial_sums.pop(entry.path, None)
        if not start or hash_sum is None:
            hash_sum = HashSum(entry.size)
        sha = reader.read_large(first, start, hash_sum)
        if entry.size != os.fstat(fd).st_size:
            os.ftruncate(fd, entry.size)
        return sha, hash_sum.blocks

    def _create(self, name: bytes) -> int:
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_CREAT | os.O_EXCL
        try:
            return os.open(name, flags, 0o600, dir_fd=self.fd)
        except FileExistsError:
            # The old file is not reused, because an earlier attempt may still have it
            # open.
            remove(self.fd, name)
            return os.open(name, flags, 0o600, dir_fd=self.fd)

    def _reopen(self, name: bytes, entry: Entry, start: int) -> int:
        # A complete file is opened only for reading, because it may already have a mode
        # without write permission.
        flags = os.O_RDWR if start < entry.size else os.O_RDONLY
        return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.fd)

    def _open_previous(
        self, offer: FileOffer, move: Optional[MoveToStaging]
    ) -> Optional[PreviousVersion]:
        """
        Open the previous version of a file, and move it to the staging directory if
        possible.

        Return None if no block hashes were offered for the file.
        """
        if not offer.blocks:
            return None
        path = offer.entry.path
        file, offered = self._base + path, self._previous[path]
        if path in self._changing:
            name = changing_name(path)
            fd = open_changing(self.fd, name)
            return PreviousVersion(fd, offer, offered, name)
        if move is not None and path in self._movable:
            with contextlib.suppress(OSError):
                return move_to_staging(file, self.fd, offer, offered, move)
        return PreviousVersion(os.open(file, os.O_RDONLY | FLAGS), offer, offered)

    def _changing_offer(self, entry: Entry, alive: Alive) -> FileOffer:
        """
        Return the offer for a file that an earlier attempt was changing in place.

        The offer has the block hashes of that file, unless the file cannot be read.
        """
        name = changing_name(entry.path)
        try:
            os.close(open_changing(self.fd, name))
            hashed = hash_file(self._staging + name, alive)
        except (OSError, Unstable):
            remove(self.fd, name)
            return FileOffer(entry)
        self._changing.add(entry.path)
        return self._add_blocks(FileOffer(entry), hashed.st, hashed.blocks)

    def _add_blocks(
        self, offer: FileOffer, st: os.stat_result, digests: bytes
    ) -> FileOffer:
        self._blocks_left -= len(digests) // DIGEST
        if not digests or self._blocks_left < 0:
            return offer
        self._previous[offer.entry.path] = file_state(st)
        return offer._replace(blocks=digests)


def partial_name(entry: Entry) -> bytes:
    """
    Return the name of the partial file of *entry* in the staging directory.

    The name depends on the path, size and mtime of *entry*.
    """
    key = b"%b\0%d %d" % (entry.path, entry.size, entry.mtime_ns)
    return b"partial-" + hashlib.sha256(key).hexdigest()[:40].encode("ascii")
