"""
Reuse the previous version of a big file, whose unchanged blocks need not be sent.

A copy of the unchanged blocks would need as much disk space again, and for hundreds of
gigabytes it would take minutes. A push can avoid the copy: it moves the previous
version to the staging directory and changes it there. This is safe because the client
has the complete new version. No reader sees a half-changed file. After a broken
connection, the next push finds the file in the staging directory by its name.
"""

from __future__ import annotations

import hashlib
import os
import stat
from typing import Callable

from ..file_names import Hostile, show
from . import block_hashes
from .block_hashes import BLOCK, DIGEST
from .content_stream import FileOffer, Moved
from .hash_index import FileState, file_state

# A function of this type gets a path and a name. It moves the file at the path into the
# staging directory, under that name. It raises OSError if that
# fails.
MoveToStaging = Callable[[bytes, bytes], None]
FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class PreviousVersion:
    """
    The receiver's previous version of a big file, open as *fd*.

    The receiver has offered the block hashes of this version to the sender.

    Args:
        offered: The state of this version when its block hashes were offered.

        name: The name of this version in the staging directory if it is changed in
            place, else b"".

        unchanged: Whether this version still was in the state *offered* before the
            receiver's first change in place.
    """

    def __init__(
        self,
        fd: int,
        offer: FileOffer,
        offered: FileState,
        name: bytes = b"",
        unchanged: bool = True,
    ) -> None:
        self.fd = fd
        self.name = name
        self._offer = offer
        self._offered = offered
        self._unchanged = unchanged

    def digests(self, begin: int, length: int) -> bytes:
        """
        Return the hashes of the blocks in a range that the sender called unchanged.

        Raises `Hostile` if the range is not made of blocks that this version has.
        """
        first = begin // BLOCK
        count = -(-length // BLOCK)
        digests = self._offer.blocks[first * DIGEST : (first + count) * DIGEST]
        entry, size = self._offer.entry, self._offered[0]
        # The last block may be shorter than the others if both versions end with it.
        whole_blocks = begin + length == entry.size == size or not length % BLOCK
        if begin % BLOCK or begin + length > size or not whole_blocks:
            raise Hostile("%s is not here" % show(entry.path))
        return digests

    def keep(self, target: int, at: int, length: int, moved: Moved) -> bool:
        """
        Make sure that the file *target* has the bytes of an unchanged range.

        They are copied, unless *target* is this version itself, changed in place.
        Return False if this version ends before the range does.
        """
        if self.name:
            moved(length)
            return True
        end = at + length
        for begin, after in block_hashes.data_ranges(self.fd, at, end):
            moved(begin - at)
            at = begin
            while at < after:
                count = block_hashes.copy(self.fd, target, at, after - at)
                if not count:
                    return False
                at += count
                moved(count)
        moved(end - at)
        return True

    def is_unchanged(self) -> bool:
        """
        Return whether this version still was in the state *offered* when it was used.
        """
        if self.name:
            # The receiver's own writes change the state of the file. So the state was
            # compared before the first write.
            return self._unchanged
        return file_state(os.fstat(self.fd)) == self._offered


def changing_name(path: bytes) -> bytes:
    """Return the staging name of the file at *path* while it is changed in place."""
    return b"changing-" + hashlib.sha256(path).hexdigest()[:40].encode("ascii")


def can_move(st: os.stat_result) -> bool:
    """
    Return whether a file may be moved away and changed instead of copied.

    A file with a second hard link may not, because it must stay as it is under that
    name. A file of another user may not, because this user cannot set its mode and
    times.
    """
    return stat.S_ISREG(st.st_mode) and st.st_nlink == 1 and st.st_uid == os.geteuid()


def move_to_staging(
    file: bytes, staging: int, offer: FileOffer, offered: FileState, move: MoveToStaging
) -> PreviousVersion:
    """
    Move the previous version *file* to the staging directory, and open it for writing.

    Raises `OSError`, also if the file has changed since it was offered.
    """
    st = os.lstat(file)
    if file_state(st) != offered or not can_move(st):
        raise OSError("the file has changed since it was offered")
    name = changing_name(offer.entry.path)
    move(offer.entry.path, name)
    fd = open_changing(staging, name)
    now = os.fstat(fd)
    # Another file may have replaced the file between lstat and move.
    unchanged = os.path.samestat(st, now) and file_state(now)[:2] == offered[:2]
    return PreviousVersion(fd, offer, offered, name, unchanged)


def open_changing(staging: int, name: bytes) -> int:
    """Open a file in the staging directory for writing, whatever its mode."""
    fd = os.open(name, os.O_RDONLY | FLAGS, dir_fd=staging)
    try:
        os.fchmod(fd, 0o600)
    finally:
        os.close(fd)
    return os.open(name, os.O_RDWR | FLAGS, dir_fd=staging)
