"""
Compare two manifests bucket by bucket, so that only buckets that differ travel.

The CRC of a path chooses its bucket. A manifest has about one bucket for each 32
entries, at most 256; the other end sees their number from the length of the hashes.
"""

from __future__ import annotations

import hashlib
import zlib
from typing import Callable, Iterable, List, Tuple

from .manifest import Entry, entry_bytes

HASH = 16
# The hash of a bucket with a file whose contents are not known. It equals no other.
UNKNOWN = bytes(HASH)
ENTRIES = 32
MOST = 256


def hashes(entries: List[Entry], *, times: bool = False) -> Tuple[bytes, str]:
    """
    Return the hashes of a manifest's buckets, and the manifest's digest.

    Args:
        times: Include modification times in the hashes of the buckets.
    """
    digest = hashlib.sha256()
    count = min(len(entries) // ENTRIES + 1, MOST)
    return _hashes(entries, count, times, digest.update), digest.hexdigest()


def are_valid(bucket_hashes: bytes) -> bool:
    """Return whether bytes from the other end can be bucket hashes."""
    length = len(bucket_hashes)
    return 0 < length <= MOST * HASH and not length % HASH


def differing(
    entries: List[Entry], bucket_hashes: bytes, *, times: bool = False
) -> List[int]:
    """Return the buckets that may differ from the other end's; [] without hashes."""
    if not bucket_hashes:
        return []
    mine = _split(_hashes(entries, len(bucket_hashes) // HASH, times))
    pairs = zip(range(len(mine)), mine, _split(bucket_hashes))
    return [bucket for bucket, one, other in pairs if one == UNKNOWN or one != other]


def within(
    entries: List[Entry], buckets: Iterable[int], bucket_hashes: bytes
) -> List[Entry]:
    """Return the entries that are in these buckets."""
    chosen = frozenset(buckets)
    count = len(bucket_hashes) // HASH
    return [entry for entry in entries if zlib.crc32(entry.path) % count in chosen]


def merged(
    known: List[Entry],
    fresh: List[Entry],
    buckets: Iterable[int],
    bucket_hashes: bytes,
) -> List[Entry]:
    """Return the manifest with *fresh* in these buckets and *known* in the others."""
    others = frozenset(range(len(bucket_hashes) // HASH)).difference(buckets)
    return sorted(within(known, others, bucket_hashes) + fresh)


def _hashes(
    entries: List[Entry],
    count: int,
    times: bool,
    also: Callable[[bytes], object] = lambda data: None,
) -> bytes:
    """Return the bucket hashes; *also* is called with the bytes of each entry."""
    sums = [hashlib.sha256() for _ in range(count)]
    unknown = set()
    for entry in entries:
        bucket = zlib.crc32(entry.path) % count
        data = entry_bytes(entry)
        also(data)
        sums[bucket].update(b"%b%d" % (data, entry.mtime_ns) if times else data)
        if entry.sha is None and entry.kind == "f":
            unknown.add(bucket)
    return b"".join(
        UNKNOWN if bucket in unknown else whole.digest()[:HASH]
        for bucket, whole in enumerate(sums)
    )


def _split(bucket_hashes: bytes) -> List[bytes]:
    return [bucket_hashes[at : at + HASH] for at in range(0, len(bucket_hashes), HASH)]
