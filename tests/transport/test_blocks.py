"""Of a big file that has changed, only what has changed travels."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from onebox.agent import blocks
from onebox.agent.index import Index, read_hash
from onebox.agent.manifest import Entry, scan
from onebox.agent.names import Hostile
from onebox.agent.receiver import Landed, Receiver
from onebox.agent.stream import END, SAME, SEGMENT, Offer, head
from onebox.transport import outputs, sync

from .conftest import AgentBox

MIB = 1 << 20
SIZE = 24 * MIB
CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "middle": lambda old: old[: 12 * MIB + 5] + os.urandom(9) + old[12 * MIB + 14 :],
    "first byte": lambda old: os.urandom(9) + old[9:],
    "last byte": lambda old: old[:-9] + os.urandom(9),
    "grown": lambda old: old + os.urandom(100_000),
    "cut": lambda old: old[: 17 * MIB + 3],
    "touched": lambda old: old,
}


def quiet(*numbers: int) -> None:
    """Take progress and say nothing."""


def write(path: Path, data: bytes, mtime: int) -> None:
    """Write a file that has not just been written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, (mtime, mtime))


@pytest.mark.parametrize("change", CHANGES)
def test_push(agent_box: AgentBox, tmp_path: Path, change: str) -> None:
    """
    A push of a changed file sends the blocks that differ, and all arrives.
    """
    link = agent_box.link()
    old = os.urandom(SIZE)
    new = CHANGES[change](old)
    for data, mtime in ((old, 1_000_000_001), (new, 1_000_000_777)):
        write(tmp_path / "big", data, mtime)
        done = sync.push(link, tmp_path, [b"big"], tmp_path / "index", quiet)

    assert new == (agent_box.work / "big").read_bytes()
    assert 1_000_000_777 == (agent_box.work / "big").stat().st_mtime
    assert done.sent_bytes < 2 * MIB


@pytest.mark.parametrize("change", CHANGES)
def test_fetch(agent_box: AgentBox, tmp_path: Path, change: str) -> None:
    """
    A fetch of a changed file brings the blocks that differ, and all arrives.
    """
    link = agent_box.link()
    old = os.urandom(SIZE)
    new = CHANGES[change](old)
    for data, mtime in ((old, 1_000_000_001), (new, 1_000_000_777)):
        write(agent_box.work / "big", data, mtime)
        before = link.moved
        outputs.fetch(link, ["big"], tmp_path / "here", tmp_path / "memory", quiet)

    assert new == (tmp_path / "here" / "big").read_bytes()
    assert link.moved - before < 2 * MIB


def test_holes_stay_holes(agent_box: AgentBox, tmp_path: Path) -> None:
    """
    A sparse file that has changed takes no more room than it did.
    """
    link = agent_box.link()
    for mtime in (1_000_000_001, 1_000_000_777):
        with (tmp_path / "big").open("wb") as file:
            file.truncate(SIZE)
            file.seek(5 * MIB)
            file.write(os.urandom(10))
        os.utime(tmp_path / "big", (mtime, mtime))
        sync.push(link, tmp_path, [b"big"], tmp_path / "index", quiet)

    assert (tmp_path / "big").read_bytes() == (agent_box.work / "big").read_bytes()
    assert (agent_box.work / "big").stat().st_blocks * 512 < 4 * MIB


@pytest.mark.parametrize("size", [0, 5, blocks.BIG, blocks.BIG + 1, SIZE, SIZE + 5])
def test_the_hash_is_one(tmp_path: Path, size: int) -> None:
    """
    A file has one hash, whether it is read by threads or comes in pieces.
    """
    data = os.urandom(size)
    write(tmp_path / "file", data, 1_000_000_001)
    found = read_hash(os.fsencode(tmp_path / "file"))
    whole = blocks.Sum(size)
    for at in range(0, size, 300_007):
        whole.update(data[at : at + 300_007])

    assert (found.sha, found.blocks) == (whole.digest(), whole.blocks)
    assert (hashlib.sha256(data).digest() == found.sha) == (size <= blocks.BIG)


def test_what_the_receiver_never_offered(tmp_path: Path) -> None:
    """
    A sender cannot have the receiver read what it did not offer.
    """
    (tmp_path / "big").write_bytes(bytes(SIZE))
    receiver = Receiver(os.fsencode(tmp_path / "staging"), os.fsencode(tmp_path))
    offer = Offer(Entry(b"big", "f", 0o644, SIZE))
    record = head(b"big", 0) + SEGMENT.pack(0, SAME | SIZE) + END.pack(0, 0, b"-", b"")
    frames = iter([(b"D", record), (b"Z", b"")])

    with pytest.raises(Hostile):
        receiver.receive(lambda: next(frames), {b"big": offer}, lambda landed: None)


@pytest.mark.parametrize("new", [b"short", bytes(SIZE)])
def test_a_file_that_has_changed_meanwhile(tmp_path: Path, new: bytes) -> None:
    """
    If the old file is not as it was offered, the new one does not land.
    """
    old = tmp_path / "big"
    write(old, os.urandom(SIZE), 1_000_000_001)
    receiver = Receiver(os.fsencode(tmp_path / "staging"), os.fsencode(tmp_path))
    offer, sha = offered(receiver, tmp_path)
    old.write_bytes(new)
    landed = pour(receiver, offer, SEGMENT.pack(0, SAME | SIZE), sha)

    assert ([b"big"], []) == (receiver.bad, landed)


def test_the_older_file_is_as_it_was_offered(tmp_path: Path) -> None:
    """
    What has stayed the same is taken from the older file without reading it here.
    """
    old = tmp_path / "big"
    write(old, os.urandom(SIZE), 1_000_000_001)
    receiver = Receiver(os.fsencode(tmp_path / "staging"), os.fsencode(tmp_path))
    offer, sha = offered(receiver, tmp_path)
    landed = pour(receiver, offer, SEGMENT.pack(0, SAME | SIZE), sha)

    assert ([], offer.blocks) == (receiver.bad, landed[0].blocks)
    name = landed[0].name
    assert name is not None
    assert old.read_bytes() == (tmp_path / "staging" / os.fsdecode(name)).read_bytes()


@pytest.mark.parametrize(
    ("begin", "length"),
    [(5, MIB), (MIB, MIB + 5), (0, SIZE + MIB), (SIZE, MIB), (MIB - 1, SIZE)],
)
def test_only_whole_blocks_are_the_same(
    tmp_path: Path, begin: int, length: int
) -> None:
    """
    A sender can have only such parts taken from the older file as have a hash.
    """
    write(tmp_path / "big", os.urandom(SIZE + 5), 1_000_000_001)
    receiver = Receiver(os.fsencode(tmp_path / "staging"), os.fsencode(tmp_path))
    offer, sha = offered(receiver, tmp_path)
    offer = offer._replace(entry=offer.entry._replace(size=SIZE + 3 * MIB))

    with pytest.raises(Hostile):
        pour(receiver, offer, SEGMENT.pack(begin, SAME | length), sha)


def offered(receiver: Receiver, folder: Path) -> tuple[Offer, bytes]:
    """Return the offer of the file "big" as an older version, and its hash."""
    index = Index()
    entry = scan(os.fsencode(folder), [b"big"], index, hashing=True).entries[0]
    offer = receiver.compared(Offer(entry._replace(sha=None)), index)
    assert offer.blocks
    assert entry.sha is not None
    return offer, entry.sha


def pour(receiver: Receiver, offer: Offer, segments: bytes, sha: bytes) -> list[Landed]:
    """Have the receiver take in one record; return what has landed."""
    path = offer.entry.path
    record = head(path, 0) + segments + END.pack(0, 0, b"+", sha)
    frames = iter([(b"D", record), (b"Z", b"")])
    landed: list[Landed] = []
    receiver.receive(lambda: next(frames), {path: offer}, landed.append)
    return landed
