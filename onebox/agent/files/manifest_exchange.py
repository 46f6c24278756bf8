"""
Compare, send and receive manifests and other long lists.

The entries of a manifest are divided into buckets. The hashes of the buckets are sent
first; then only the entries in differing buckets must follow. The CRC of a path chooses
its bucket. A manifest has about one bucket for each 32 entries, but at most 256
buckets; the receiver computes their number from the length of the hashes. Entries and
other rows are sent as compressed JSON in D frames.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from typing import Any, Callable, Dict, Iterable, Iterator, List, Tuple

from ..file_names import Hostile, raw, show, text
from ..protocol import CHUNK
from .block_hashes import BLOCK
from .manifest import Entry, entry_bytes

# A bucket's hash has this many bytes.
BUCKET_HASH = 16
# A bucket gets this hash if it has a file whose hash is not known. It counts as
# different from every hash, even from itself.
UNKNOWN = bytes(BUCKET_HASH)
BUCKET_ENTRIES = 32
MOST_BUCKETS = 256
# The rows are sent as lines of JSON. Each line is a list of at most this many rows.
ROWS = 256
# A received list may have this many rows and bytes. Without a limit it could fill the
# memory: one file takes about a kilobyte of the client's memory until it is installed.
MOST_ROWS = 2_000_000
MOST_BYTES = 1 << 30
# A received line may have this many bytes. 256 rows with the longest possible names
# take far less.
LONGEST_LINE = 1 << 24
# Entries with equal modes share one integer object, which saves memory.
MODES: Dict[int, int] = {}


def bucket_hashes(entries: List[Entry], *, times: bool = False) -> Tuple[bytes, str]:
    """
    Return the hashes of a manifest's buckets, and the manifest's digest.

    Args:
        times: Include modification times in the hashes of the buckets.
    """
    digest = hashlib.sha256()
    count = min(len(entries) // BUCKET_ENTRIES + 1, MOST_BUCKETS)
    return _bucket_hashes(entries, count, times, digest.update), digest.hexdigest()


def are_bucket_hashes(hashes: bytes) -> bool:
    """Return whether received bytes can be bucket hashes, judged by their length."""
    length = len(hashes)
    return 0 < length <= MOST_BUCKETS * BUCKET_HASH and not length % BUCKET_HASH


def differing_buckets(
    entries: List[Entry], hashes: bytes, *, times: bool = False
) -> List[int]:
    """
    Return the numbers of the buckets that may differ from those of the peer.

    *hashes* are the peer's bucket hashes; if they are b"", the result is [].
    """
    if not hashes:
        return []
    mine = _split(_bucket_hashes(entries, len(hashes) // BUCKET_HASH, times))
    pairs = zip(range(len(mine)), mine, _split(hashes))
    return [bucket for bucket, one, other in pairs if one == UNKNOWN or one != other]


def entries_in(
    entries: List[Entry], buckets: Iterable[int], hashes: bytes
) -> List[Entry]:
    """
    Return the entries that are in *buckets*.

    *hashes* has one hash for each bucket, and so gives the number of buckets.
    """
    chosen = frozenset(buckets)
    count = len(hashes) // BUCKET_HASH
    return [entry for entry in entries if zlib.crc32(entry.path) % count in chosen]


def merged(
    known: List[Entry],
    fresh: List[Entry],
    buckets: Iterable[int],
    hashes: bytes,
) -> List[Entry]:
    """
    Return a manifest that combines *fresh* and *known*.

    *fresh* has the entries in *buckets*. The entries in all other buckets are taken
    from *known*. *hashes* are the bucket hashes; their length shows how many buckets
    there are.
    """
    others = frozenset(range(len(hashes) // BUCKET_HASH)).difference(buckets)
    return sorted(entries_in(known, others, hashes) + fresh)


def send_rows(send: Callable[[bytes, bytes], None], rows: Iterable[Any]) -> None:
    """Send any number of JSON values as compressed D frames, and then a Z frame."""
    packer = zlib.compressobj(1)
    out = bytearray()
    batch: List[Any] = []
    for row in rows:
        batch.append(row)
        if len(batch) == ROWS:
            out += packer.compress(_line(batch))
            batch = []
            if len(out) >= CHUNK:
                send(b"D", bytes(out))
                out.clear()
    out += packer.compress(_line(batch)) + packer.flush()
    send(b"D", bytes(out))
    send(b"Z", b"")


def receive_rows(receive: Callable[[], Tuple[bytes, bytes]]) -> Iterator[Any]:
    """
    Yield the rows that the peer's `send_rows` sends.

    Raises `Hostile` if the list is invalid or too long.
    """
    unpacker = zlib.decompressobj()
    rest = b""
    rows = size = received = 0
    try:
        while True:
            kind, payload = receive()
            if kind == b"Z":
                break
            if kind != b"D":
                raise Hostile("unexpected frame %r in a list" % kind)
            received += len(payload)
            if unpacker.eof and payload:
                raise Hostile("bytes after the end of a list")
            if received > MOST_BYTES:
                raise Hostile("a list of more than %d bytes" % MOST_BYTES)
            while payload:
                piece = unpacker.decompress(payload, BLOCK)
                size += len(piece)
                rest += piece
                payload = unpacker.unconsumed_tail
                if unpacker.unused_data:
                    raise Hostile("bytes after the end of a list")
                *lines, rest = rest.split(b"\n")
                for line in lines:
                    batch = json.loads(line)
                    rows += len(batch)
                    if rows > MOST_ROWS or size > MOST_BYTES or len(batch) > ROWS:
                        raise Hostile("more than %d files" % MOST_ROWS)
                    yield from batch
                if len(rest) > LONGEST_LINE:
                    raise Hostile("a line of a list is too long")
    except (ValueError, TypeError, RecursionError, zlib.error) as error:
        raise Hostile("invalid list: %s" % error) from error


def pack_entry(entry: Entry) -> List[Any]:
    """Return an entry as a row of JSON values; `unpack_entry` reverses it."""
    return [
        text(entry.path),
        entry.kind,
        entry.mode,
        entry.size,
        entry.mtime_ns,
        text(entry.target),
        None if entry.sha is None else entry.sha.hex(),
    ]


def unpack_entry(row: Any) -> Entry:
    """
    Return the entry that `pack_entry` made *row* from.

    Raises `Hostile` if the row is invalid.
    """
    try:
        path, kind, mode, size, mtime_ns, target, sha = row
        entry = Entry(
            raw(path),
            str(kind),
            MODES.setdefault(mode, mode & 0o7777),
            size + 0,
            mtime_ns + 0,
            raw(target),
            None if sha is None else bytes.fromhex(sha),
        )
    except (TypeError, ValueError, AttributeError) as error:
        raise Hostile("invalid entry of a manifest: %.80r" % (row,)) from error
    numbers = (entry.mode, entry.size, entry.mtime_ns)
    if not all(type(number) is int for number in numbers) or entry.size < 0:
        raise Hostile("invalid entry of a manifest: %.80r" % (row,))
    if entry.size >= 1 << 63 or abs(entry.mtime_ns) >= 1 << 63 or b"\0" in entry.target:
        raise Hostile("invalid entry of a manifest: %.80r" % (row,))
    if entry.kind == "l" and not entry.target:
        raise Hostile("%s is a link without a target" % show(entry.path))
    return entry


def _bucket_hashes(
    entries: List[Entry],
    count: int,
    times: bool,
    on_entry: Callable[[bytes], object] = lambda data: None,
) -> bytes:
    """
    Return the hashes of *count* buckets, one after the other.

    *on_entry* is called with the bytes of each entry.
    """
    sums = [hashlib.sha256() for _ in range(count)]
    unknown = set()
    for entry in entries:
        bucket = zlib.crc32(entry.path) % count
        data = entry_bytes(entry)
        on_entry(data)
        sums[bucket].update(b"%b%d" % (data, entry.mtime_ns) if times else data)
        if entry.sha is None and entry.kind == "f":
            unknown.add(bucket)
    return b"".join(
        UNKNOWN if bucket in unknown else whole.digest()[:BUCKET_HASH]
        for bucket, whole in enumerate(sums)
    )


def _split(hashes: bytes) -> List[bytes]:
    return [hashes[at : at + BUCKET_HASH] for at in range(0, len(hashes), BUCKET_HASH)]


def _line(batch: List[Any]) -> bytes:
    return json.dumps(batch, separators=(",", ":")).encode("ascii") + b"\n"
