"""Two manifests are compared bucket by bucket, and only differing buckets are sent."""

from __future__ import annotations

import random
from typing import Any

import pytest

from onebox.agent.files import manifest, manifest_exchange
from onebox.agent.files.manifest import Entry

COUNT = 10_000


def entries(count: int) -> list[Entry]:
    """Return a manifest with this number of files."""
    return [
        Entry(b"d/%06d" % at, "f", 0o644, at, at, b"", bytes(32)) for at in range(count)
    ]


def test_equal_manifests_have_no_differing_bucket() -> None:
    """
    Equal manifests have no differing bucket; times count only on request.
    """
    mine = entries(COUNT)
    later = [entry._replace(mtime_ns=entry.mtime_ns + 1) for entry in mine]

    assert [] == manifest_exchange.differing_buckets(
        mine, manifest_exchange.bucket_hashes(mine)[0]
    )
    assert [] == manifest_exchange.differing_buckets(
        mine, manifest_exchange.bucket_hashes(later)[0]
    )
    sent_hashes = manifest_exchange.bucket_hashes(later, times=True)[0]
    assert list(range(256)) == manifest_exchange.differing_buckets(
        mine, sent_hashes, times=True
    )


@pytest.mark.parametrize("count", [0, 1, 31, 32, 1000, COUNT])
def test_merge_of_differing_buckets_gives_the_other_manifest(count: int) -> None:
    """
    Replacing the entries of differing buckets gives the other end's manifest.
    """
    chance = random.Random(count)
    mine = entries(count)
    theirs = [entry for entry in mine if chance.random() > 0.003]
    theirs = [
        entry._replace(size=entry.size + 1) if chance.random() < 0.003 else entry
        for entry in theirs
    ]
    theirs = sorted([*theirs, Entry(b"new", "l", 0o777, target=b"d")])
    sent_hashes = manifest_exchange.bucket_hashes(mine)[0]
    others = manifest_exchange.differing_buckets(theirs, sent_hashes)
    fresh = manifest_exchange.entries_in(theirs, others, sent_hashes)

    assert theirs == manifest_exchange.merged(mine, fresh, others, sent_hashes)
    if count == COUNT:
        assert len(fresh) < COUNT / 3


def test_bucket_with_an_unknown_hash_is_never_equal() -> None:
    """
    A file that neither end has hashed does not count as equal.
    """
    mine = entries(COUNT)
    mine[7] = mine[7]._replace(sha=None)
    sent_hashes = manifest_exchange.bucket_hashes(mine)[0]

    (part,) = manifest_exchange.differing_buckets(mine, sent_hashes)
    assert mine[7] in manifest_exchange.entries_in(mine, [part], sent_hashes)


@pytest.mark.parametrize("field", ["kind", "mode", "size", "target", "sha"])
def test_any_difference_of_an_entry_changes_its_bucket_only(field: str) -> None:
    """
    A difference in any field of an entry changes its bucket and no other.
    """
    mine = entries(COUNT)
    other: dict[str, Any] = {
        "kind": "d",
        "mode": 0o600,
        "size": 9,
        "target": b"x",
        "sha": b"1" * 32,
    }
    theirs = [mine[0]._replace(**{field: other[field]}), *mine[1:]]
    sent_hashes = manifest_exchange.bucket_hashes(mine)[0]
    (part,) = manifest_exchange.differing_buckets(theirs, sent_hashes)

    assert theirs[0] in manifest_exchange.entries_in(theirs, [part], sent_hashes)
    assert manifest.digest(theirs) != manifest.digest(mine)


@pytest.mark.parametrize("sent_hashes", [b"", b"x" * 15, b"x" * 17, b"x" * 257 * 16])
def test_invalid_bucket_hashes_are_detected(sent_hashes: bytes) -> None:
    """
    Bytes that cannot be bucket hashes are detected.
    """
    assert not manifest_exchange.are_bucket_hashes(sent_hashes)
    assert manifest_exchange.are_bucket_hashes(manifest_exchange.bucket_hashes([])[0])
    assert manifest_exchange.are_bucket_hashes(
        manifest_exchange.bucket_hashes(entries(COUNT))[0]
    )
