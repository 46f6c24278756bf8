"""
Which blocks of a big file the receiver has already, in an older version of it.

A block counts as the same at the same place only: files that change in their
middle or grow at their end are found, what has moved within a file is not.
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor

from .index import BLOCK, Alive

# Smaller files are not worth reading twice.
BIG = 8 << 20
# Enough for an accident never to happen; the hash of the whole file decides.
SUM = 8
# So many blocks in all, for what is said of them has to stay short.
MOST = 1 << 17
THREADS = 4


def sums(path: bytes, alive: Alive) -> bytes:
    """Return the short hashes of a file's blocks, one after the other."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        whole = b""
        places = range(0, min(os.fstat(fd).st_size, MOST * BLOCK), BLOCK)
        with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
            found = pool.map(lambda at: short(os.pread(fd, BLOCK, at)), places)
            for one in found:
                alive()
                whole += one
        return whole
    finally:
        os.close(fd)


def short(block: bytes) -> bytes:
    """Return a block's short hash."""
    return hashlib.sha256(block).digest()[:SUM]


def at(told: bytes, place: int) -> bytes:
    """Return what the sums say of the block that begins at *place*."""
    number = place // BLOCK * SUM
    return told[number : number + SUM]
