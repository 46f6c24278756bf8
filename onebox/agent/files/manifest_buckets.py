"""
Compare two manifests part by part, so that only the parts that differ travel.

Which part a path is in, its CRC says. How many parts there are is seen from the
length of their hashes: about one for every few dozen entries.
"""

from __future__ import annotations

import hashlib
import zlib
from typing import Callable, Iterable, List, Tuple

from .manifest import Entry, line

HASH = 16
# Says of a part that the contents of some file in it are not known.
UNKNOWN = bytes(HASH)
ENTRIES = 32
MOST = 256


def hashes(entries: List[Entry], *, times: bool = False) -> Tuple[bytes, str]:
    """
    Return the hashes of a manifest's parts, and its digest.

    With *times*, they count in the parts as well.
    """
    whole = hashlib.sha256()
    told = _hashes(entries, min(len(entries) // ENTRIES + 1, MOST), times, whole.update)
    return told, whole.hexdigest()


def makes_sense(told: bytes) -> bool:
    """Say whether something can be the hashes of parts."""
    return 0 < len(told) <= MOST * HASH and not len(told) % HASH


def differing(entries: List[Entry], told: bytes, *, times: bool = False) -> List[int]:
    """Return the parts that were told which may not be so here."""
    if not told:
        return []
    mine = _split(_hashes(entries, len(told) // HASH, times))
    both = zip(range(len(mine)), mine, _split(told))
    return [part for part, one, other in both if one == UNKNOWN or one != other]


def within(entries: List[Entry], parts: Iterable[int], told: bytes) -> List[Entry]:
    """Return the entries that are in some of the parts that were told."""
    some = frozenset(parts)
    count = len(told) // HASH
    return [entry for entry in entries if zlib.crc32(entry.path) % count in some]


def merged(
    known: List[Entry], fresh: List[Entry], parts: Iterable[int], told: bytes
) -> List[Entry]:
    """Return the manifest that is *fresh* in these parts, and as *known* elsewhere."""
    others = frozenset(range(len(told) // HASH)).difference(parts)
    return sorted(within(known, others, told) + fresh)


def _hashes(
    entries: List[Entry],
    count: int,
    times: bool,
    also: Callable[[bytes], object] = lambda told: None,
) -> bytes:
    sums = [hashlib.sha256() for _ in range(count)]
    unknown = set()
    for entry in entries:
        part = zlib.crc32(entry.path) % count
        told = line(entry)
        also(told)
        sums[part].update(b"%b%d" % (told, entry.mtime_ns) if times else told)
        if entry.sha is None and entry.kind == "f":
            unknown.add(part)
    return b"".join(
        UNKNOWN if part in unknown else whole.digest()[:HASH]
        for part, whole in enumerate(sums)
    )


def _split(whole: bytes) -> List[bytes]:
    return [whole[at : at + HASH] for at in range(0, len(whole), HASH)]
