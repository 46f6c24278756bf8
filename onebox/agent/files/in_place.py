"""
The file that has been in a big one's place until now: what stays the same is its.

A file that is copied needs its room twice, and to copy hundreds of gigabytes for
a changed one takes long. So where the receiver may, the older file is taken out
of its place and changed itself: nobody sees it half changed, and what breaks off
is found again under its name in the staging directory.
"""

from __future__ import annotations

import hashlib
import os
import stat
from typing import Callable

from ..file_names import Hostile, show
from . import block_hashes
from .block_hashes import BLOCK, DIGEST
from .hash_index import State, state
from .stream import Moved, Offer

# Moves the file at a path to a name in the staging directory. Raises OSError.
Take = Callable[[bytes, bytes], None]
FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Older:
    """
    The older file, open as *fd*, of which an offer tells the blocks.

    *was* is the state it was offered in. *name* is its name in the staging
    directory, if it is there to be changed; *sound* that it was as offered then.
    """

    def __init__(
        self, fd: int, offer: Offer, was: State, name: bytes = b"", sound: bool = True
    ) -> None:
        self.fd = fd
        self.name = name
        self._offer = offer
        self._was = was
        self._sound = sound

    def known(self, begin: int, length: int) -> bytes:
        """Return the hashes of a part that stays the same. Raises Hostile."""
        first = begin // BLOCK
        count = -(-length // BLOCK)
        digests = self._offer.blocks[first * DIGEST : (first + count) * DIGEST]
        entry, size = self._offer.entry, self._was[0]
        # The last block of both may be shorter, if it ends at the same place.
        ends = begin + length == entry.size == size or not length % BLOCK
        if begin % BLOCK or begin + length > size or not ends:
            raise Hostile("%s is not here" % show(entry.path))
        return digests

    def keep(self, target: int, at: int, length: int, moved: Moved) -> bool:
        """Have the new file keep this part; say whether all of it was there."""
        if self.name:
            moved(length)
            return True
        end = at + length
        for begin, after in block_hashes.filled(self.fd, at, end):
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

    def is_sound(self) -> bool:
        """Say whether it was as it had been offered all the time."""
        if self.name:
            # Once we write to it ourselves, its state tells nothing any more.
            return self._sound
        return state(os.fstat(self.fd)) == self._was


def changing_name(path: bytes) -> bytes:
    """Return the name in the staging directory of a file that is being changed."""
    return b"changing-" + hashlib.sha256(path).hexdigest()[:40].encode("ascii")


def may_be_taken(st: os.stat_result) -> bool:
    """
    Say whether a file may be changed in place of being copied.

    Not where it has another name as well, for what is there has to stay, nor
    where it is another user's, whose mode and times are not ours to set.
    """
    return stat.S_ISREG(st.st_mode) and st.st_nlink == 1 and st.st_uid == os.geteuid()


def take_out(file: bytes, staging: int, offer: Offer, was: State, take: Take) -> Older:
    """Take a file that may be taken out of its place. Raises OSError."""
    st = os.lstat(file)
    if state(st) != was or not may_be_taken(st):
        raise OSError("not as it was offered")
    name = changing_name(offer.entry.path)
    take(offer.entry.path, name)
    fd = open_changing(staging, name)
    now = os.fstat(fd)
    # What somebody has put there meanwhile is not what was offered.
    same = os.path.samestat(st, now) and state(now)[:2] == was[:2]
    return Older(fd, offer, was, name, same)


def open_changing(staging: int, name: bytes) -> int:
    """Open a file that is to be changed, whatever its mode. Raises OSError."""
    fd = os.open(name, os.O_RDONLY | FLAGS, dir_fd=staging)
    try:
        os.fchmod(fd, 0o600)
    finally:
        os.close(fd)
    return os.open(name, os.O_RDWR | FLAGS, dir_fd=staging)
