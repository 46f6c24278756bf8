"""Read the contents of one file from a `ContentStream` and verify their hash."""

from __future__ import annotations

import hashlib
import os
from typing import NamedTuple, Optional

from ..file_names import Hostile, show
from .block_hashes import WORTH_A_THREAD, Data, Hasher, HashSum
from .content_stream import SEGMENT, STATUS, UNCHANGED, ContentStream, Moved
from .manifest import Entry
from .previous_version import PreviousVersion


class Segment(NamedTuple):
    """
    A range of a file.

    If *unchanged* is set, the stream does not contain the bytes of the range, because
    the receiver's previous version of the file has them.
    """

    begin: int
    length: int
    unchanged: bool


def read_segment(stream: ContentStream) -> Segment:
    """Return the next segment of *stream*; its data is not read yet."""
    begin, length = SEGMENT.unpack(stream.read(SEGMENT.size))
    if length == UNCHANGED:
        raise Hostile("an unchanged segment without a length")
    return Segment(begin, length & ~UNCHANGED, bool(length & UNCHANGED))


class ContentReader:
    """
    Reads one file from *stream* into *fd*.

    *moved* is called with the number of bytes of each part that is done. *previous* is
    the receiver's previous version of a big file. The sender leaves out the ranges that
    have not changed since that version.
    """

    def __init__(
        self,
        stream: ContentStream,
        entry: Entry,
        fd: int,
        moved: Moved,
        previous: Optional[PreviousVersion] = None,
    ) -> None:
        self._stream = stream
        self._entry = entry
        self._fd = fd
        self._moved = moved
        self._previous = previous

    def read_small(self, first: Segment) -> Optional[bytes]:
        """
        Read a file of at most one segment, of which *first* was read already.

        Return the hash of the file. Return None if the file is incomplete, or if its
        hash is not the one that the sender has sent.
        """
        entry, stream = self._entry, self._stream
        data = memoryview(b"")
        if first.length:
            if first.begin or first.unchanged or first.length != entry.size:
                raise Hostile("%s does not have its announced size" % show(entry.path))
            data = stream.read(first.length)
            if any(SEGMENT.unpack(stream.read(SEGMENT.size))):
                raise Hostile("%s overflows" % show(entry.path))
            _write(self._fd, data, 0)
            self._moved(first.length)
        status, sent_sha = STATUS.unpack(stream.read(STATUS.size))
        sha = hashlib.sha256(data).digest()
        complete = status == b"+" and len(data) == entry.size
        return sha if complete and sha == sent_sha else None

    def read_large(
        self, first: Segment, start: int, hash_sum: HashSum
    ) -> Optional[bytes]:
        """
        Read a file of any number of segments, of which *first* was read already.

        Args:
            start: The number of bytes that an earlier attempt has received.

            hash_sum: The hash sum of those bytes.

        Returns:
            The hash of the file. None if the file is incomplete, or if its hash is not
            the one that the sender has sent.
        """
        entry, previous = self._entry, self._previous
        hasher = Hasher(hash_sum, threaded=entry.size - start > WORTH_A_THREAD)
        self._moved(start)
        at = start
        complete = True
        # Holes are allowed only in a new file. In a file that is changed in place, a
        # skipped range would keep its old data.
        holes = previous is None or not previous.name
        try:
            segment = first
            while segment.length:
                begin, length, unchanged = segment
                if begin < at or begin + length > entry.size:
                    raise Hostile("%s overflows" % show(entry.path))
                complete = complete and (begin == at or holes)
                hasher.zeros(begin - at, self._moved)
                if unchanged:
                    if previous is None:
                        raise Hostile("%s is not here" % show(entry.path))
                    hasher.add_digests(previous.digests(begin, length))
                    has_range = previous.keep(self._fd, begin, length, self._moved)
                    complete = has_range and complete
                else:
                    self._copy(hasher, begin, length)
                at = begin + length
                segment = read_segment(self._stream)
            status, sent_sha = STATUS.unpack(self._stream.read(STATUS.size))
            if status == b"+":
                complete = complete and (at == entry.size or holes)
                hasher.zeros(entry.size - at, self._moved)
        finally:
            sha = hasher.digest()
        complete = complete and (previous is None or previous.is_unchanged())
        return sha if complete and status == b"+" and sha == sent_sha else None

    def _copy(self, hasher: Hasher, at: int, length: int) -> None:
        while length:
            piece = self._stream.read_some(length)
            hasher.update(piece)
            _write(self._fd, piece, at)
            at += len(piece)
            length -= len(piece)
            self._moved(len(piece))


def _write(fd: int, data: Data, at: int) -> None:
    count = os.pwrite(fd, data, at)
    while count < len(data):
        count += os.pwrite(fd, memoryview(data)[count:], at + count)
