"""If a big file has changed, only its changed blocks are sent."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from onebox.agent.file_names import Hostile
from onebox.agent.files import block_hashes
from onebox.agent.files.content_stream import (
    END,
    SEGMENT,
    UNCHANGED,
    FileOffer,
    record_head,
)
from onebox.agent.files.hash_index import Index, hash_file
from onebox.agent.files.manifest import Entry, scan
from onebox.agent.files.previous_version import MoveToStaging, changing_name
from onebox.agent.files.receiver import Landed, Receiver
from onebox.errors import ConnectionLost
from onebox.remote.channel import AgentChannel
from onebox.transfer import fetch_outputs, push_files
from tests.fakes.agent_box import AgentBox
from tests.remote.steps import quiet

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


def write_old(path: Path, data: bytes, mtime: int) -> None:
    """Write a file that was last changed long ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, (mtime, mtime))


def push_big(
    link: AgentChannel, folder: Path, data: bytes, mtime: int
) -> push_files.Pushed:
    """Write a version of the file `big` in a project, and push it."""
    write_old(folder / "big", data, mtime)
    return push_files.push(link, folder, [b"big"], folder / "index", quiet)


@pytest.mark.parametrize("change", CHANGES)
def test_push_of_a_changed_big_file_sends_the_blocks_that_differ(
    agent_box: AgentBox, tmp_path: Path, change: str
) -> None:
    """
    A push of a changed big file sends only differing blocks, and the result is
    equal.
    """
    link = agent_box.connect()
    old = os.urandom(SIZE)
    new = CHANGES[change](old)
    for data, mtime in ((old, 1_000_000_001), (new, 1_000_000_777)):
        done = push_big(link, tmp_path, data, mtime)

    assert new == (agent_box.work / "big").read_bytes()
    assert 1_000_000_777 == (agent_box.work / "big").stat().st_mtime
    assert done.sent_bytes < 2 * MIB


@pytest.mark.parametrize("change", CHANGES)
def test_fetch_of_a_changed_big_file_brings_the_blocks_that_differ(
    agent_box: AgentBox, tmp_path: Path, change: str
) -> None:
    """
    A fetch of a changed big file gets only differing blocks, and the result is
    equal.
    """
    link = agent_box.connect()
    old = os.urandom(SIZE)
    new = CHANGES[change](old)
    for data, mtime in ((old, 1_000_000_001), (new, 1_000_000_777)):
        write_old(agent_box.work / "big", data, mtime)
        before = link.moved
        fetch_outputs.fetch(
            link, ["big"], tmp_path / "here", tmp_path / "memory", quiet
        )

    assert new == (tmp_path / "here" / "big").read_bytes()
    assert link.moved - before < 2 * MIB


def test_changed_sparse_file_keeps_its_holes(
    agent_box: AgentBox, tmp_path: Path
) -> None:
    """A sparse file uses no more disk space after a change than before."""
    link = agent_box.connect()
    for mtime in (1_000_000_001, 1_000_000_777):
        with (tmp_path / "big").open("wb") as file:
            file.truncate(SIZE)
            file.seek(5 * MIB)
            file.write(os.urandom(10))
        os.utime(tmp_path / "big", (mtime, mtime))
        push_files.push(link, tmp_path, [b"big"], tmp_path / "index", quiet)

    assert (tmp_path / "big").read_bytes() == (agent_box.work / "big").read_bytes()
    assert (agent_box.work / "big").stat().st_blocks * 512 < 4 * MIB


@pytest.mark.parametrize(
    "size", [0, 5, block_hashes.BIG, block_hashes.BIG + 1, SIZE, SIZE + 5]
)
def test_hash_is_the_same_for_threads_and_for_pieces(tmp_path: Path, size: int) -> None:
    """A file has one hash, whether threads read it or it arrives in pieces."""
    data = os.urandom(size)
    write_old(tmp_path / "file", data, 1_000_000_001)
    found = hash_file(os.fsencode(tmp_path / "file"))
    whole = block_hashes.HashSum(size)
    for at in range(0, size, 300_007):
        whole.update(data[at : at + 300_007])

    assert (found.sha, found.blocks) == (whole.digest(), whole.blocks)
    assert (hashlib.sha256(data).digest() == found.sha) == (size <= block_hashes.BIG)


def test_sender_cannot_use_blocks_that_were_not_offered(tmp_path: Path) -> None:
    """A sender cannot refer to blocks that the receiver did not offer."""
    (tmp_path / "big").write_bytes(bytes(SIZE))
    receiver = Receiver(os.fsencode(tmp_path / "staging"), os.fsencode(tmp_path))
    offer = FileOffer(Entry(b"big", "f", 0o644, SIZE))
    record = (
        record_head(b"big", 0)
        + SEGMENT.pack(0, UNCHANGED | SIZE)
        + END.pack(0, 0, b"-", b"")
    )
    frames = iter([(b"D", record), (b"Z", b"")])

    with pytest.raises(Hostile):
        receiver.receive(lambda: next(frames), {b"big": offer}, lambda landed: None)


@pytest.mark.parametrize("new", [b"short", bytes(SIZE)])
def test_new_version_is_refused_if_the_previous_one_has_changed(
    tmp_path: Path, new: bytes
) -> None:
    """
    If the previous version has changed since the offer, the new one is refused.
    """
    old = tmp_path / "big"
    write_old(old, os.urandom(SIZE), 1_000_000_001)
    receiver = Receiver(os.fsencode(tmp_path / "staging"), os.fsencode(tmp_path))
    offer, sha = offer_previous_version(receiver, tmp_path)
    old.write_bytes(new)
    landed = receive(receiver, offer, SEGMENT.pack(0, UNCHANGED | SIZE), sha)

    assert ([b"big"], []) == (receiver.bad, landed)


def test_unchanged_blocks_are_not_read_again(tmp_path: Path) -> None:
    """Unchanged blocks are taken from the previous version by their stored hashes."""
    old = tmp_path / "big"
    write_old(old, os.urandom(SIZE), 1_000_000_001)
    receiver = Receiver(os.fsencode(tmp_path / "staging"), os.fsencode(tmp_path))
    offer, sha = offer_previous_version(receiver, tmp_path)
    landed = receive(receiver, offer, SEGMENT.pack(0, UNCHANGED | SIZE), sha)

    assert ([], offer.blocks) == (receiver.bad, landed[0].blocks)
    name = landed[0].name
    assert name is not None
    assert old.read_bytes() == (tmp_path / "staging" / os.fsdecode(name)).read_bytes()


@pytest.mark.parametrize(
    ("begin", "length"),
    [(5, MIB), (MIB, MIB + 5), (0, SIZE + MIB), (SIZE, MIB), (MIB - 1, SIZE)],
)
def test_unchanged_ranges_must_be_whole_blocks(
    tmp_path: Path, begin: int, length: int
) -> None:
    """
    A sender may refer only to whole blocks, which have a hash.
    """
    write_old(tmp_path / "big", os.urandom(SIZE + 5), 1_000_000_001)
    receiver = Receiver(os.fsencode(tmp_path / "staging"), os.fsencode(tmp_path))
    offer, sha = offer_previous_version(receiver, tmp_path)
    offer = offer._replace(entry=offer.entry._replace(size=SIZE + 3 * MIB))

    with pytest.raises(Hostile):
        receive(receiver, offer, SEGMENT.pack(begin, UNCHANGED | length), sha)


def test_push_changes_a_big_file_in_place(agent_box: AgentBox, tmp_path: Path) -> None:
    """A push needs no space for a second copy, and leaves no other file beside it."""
    link = agent_box.connect()
    there = agent_box.work / "big"
    old = os.urandom(SIZE)
    inodes = []
    for data, mtime in ((old, 1_000_000_001), (CHANGES["middle"](old), 1_000_000_777)):
        push_big(link, tmp_path, data, mtime)
        inodes.append(there.stat().st_ino)

    assert 1 == len(set(inodes))
    assert there.read_bytes() == (tmp_path / "big").read_bytes()
    assert [] == list((agent_box.root / "files" / "incoming").iterdir())


def test_file_with_another_hard_link_is_copied_not_changed(
    agent_box: AgentBox, tmp_path: Path
) -> None:
    """A hard link that the job made to its input keeps the old contents."""
    link = agent_box.connect()
    old = os.urandom(SIZE)
    new = CHANGES["middle"](old)
    push_big(link, tmp_path, old, 1_000_000_001)
    (agent_box.work / "kept").hardlink_to(agent_box.work / "big")
    push_big(link, tmp_path, new, 1_000_000_777)

    assert old == (agent_box.work / "kept").read_bytes()
    assert new == (agent_box.work / "big").read_bytes()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_file_of_another_user_is_replaced_not_changed(
    agent_box: AgentBox, tmp_path: Path
) -> None:
    """A file whose mode and times we may not set is replaced, not changed in place."""
    link = agent_box.connect()
    there = agent_box.work / "big"
    old = os.urandom(SIZE)
    push_big(link, tmp_path, old, 1_000_000_001)
    os.chown(there, 4711, 4711)
    push_big(link, tmp_path, CHANGES["middle"](old), 1_000_000_777)

    assert there.read_bytes() == (tmp_path / "big").read_bytes()
    assert os.geteuid() == there.stat().st_uid


def test_file_stays_if_its_new_version_cannot_be_sent(tmp_path: Path) -> None:
    """Only a complete new version replaces a file."""
    write_old(tmp_path / "big", os.urandom(SIZE), 1_000_000_001)
    receiver = Receiver(os.fsencode(tmp_path / "staging"), os.fsencode(tmp_path))
    offer, _ = offer_previous_version(receiver, tmp_path)
    take = move_to_staging_from(receiver, tmp_path)

    assert [] == receive(receiver, offer, b"", bytes(32), take=take)
    assert [b"big"] == receiver.bad
    assert (tmp_path / "big").exists()


def test_file_that_is_replaced_while_it_is_moved_is_refused(tmp_path: Path) -> None:
    """A file that replaces the offered one at the last moment is not used."""
    old = os.urandom(SIZE)
    write_old(tmp_path / "big", old, 1_000_000_001)
    receiver = Receiver(os.fsencode(tmp_path / "staging"), os.fsencode(tmp_path))
    offer, sha = offer_previous_version(receiver, tmp_path)
    taking = move_to_staging_from(receiver, tmp_path)

    def take(path: bytes, name: bytes) -> None:
        write_old(tmp_path / "other", os.urandom(SIZE), 1_000_000_001)
        (tmp_path / "other").replace(tmp_path / "big")
        taking(path, name)

    assert [] == receive(
        receiver, offer, SEGMENT.pack(0, UNCHANGED | SIZE), sha, take=take
    )
    assert [b"big"] == receiver.bad


def test_offered_blocks_are_those_of_the_file_that_is_opened(tmp_path: Path) -> None:
    """The offered blocks are those of the file that is opened to apply them."""
    old = os.urandom(SIZE)
    write_old(tmp_path / "big", old, 1_000_000_001)
    left = tmp_path / "staging" / os.fsdecode(changing_name(b"big"))
    write_old(left, os.urandom(SIZE), 1_000_000_001)
    receiver = Receiver(os.fsencode(tmp_path / "staging"), os.fsencode(tmp_path))
    offer, sha = offer_previous_version(receiver, tmp_path)
    take = move_to_staging_from(receiver, tmp_path)
    (landed,) = receive(
        receiver, offer, SEGMENT.pack(0, UNCHANGED | SIZE), sha, take=take
    )

    assert landed.name is not None
    assert old == (tmp_path / "staging" / os.fsdecode(landed.name)).read_bytes()


@pytest.mark.parametrize("mode", [0o444, 0o000])
def test_interrupted_file_with_a_read_only_mode_is_continued(
    tmp_path: Path, mode: int
) -> None:
    """A transfer that was interrupted after it set a read-only mode can continue."""
    new = os.urandom(SIZE)
    left = tmp_path / "staging" / os.fsdecode(changing_name(b"big"))
    write_old(left, new, 1_000_000_001)
    left.chmod(mode)
    receiver = Receiver(os.fsencode(tmp_path / "staging"), os.fsencode(tmp_path))
    offer = receiver.offer(Entry(b"big", "f", 0o644, SIZE))

    assert blocks_of(new) == offer.blocks
    assert 0 == receiver.disk_needed(offer)
    assert 0o600 == left.stat().st_mode & 0o7777


def test_change_in_place_needs_only_the_growth_on_the_disk(tmp_path: Path) -> None:
    """
    A change in place needs only the growth of the file; a copy needs its whole
    size.
    """
    for name in ("alone", "twice"):
        write_old(tmp_path / name, os.urandom(SIZE), 1_000_000_001)
    (tmp_path / "twin").hardlink_to(tmp_path / "twice")
    receiver = Receiver(os.fsencode(tmp_path / "staging"), os.fsencode(tmp_path))
    index = Index()
    scan(os.fsencode(tmp_path), [b"alone", b"twice"], index, hashing=True)
    rooms = [
        receiver.disk_needed(
            receiver.with_blocks(FileOffer(Entry(name, "f", 0, SIZE + 5)), index)
        )
        for name in (b"alone", b"twice", b"none")
    ]

    assert [5, SIZE + 5, SIZE + 5] == rooms


@pytest.mark.parametrize("first", [3 * MIB, SIZE])
def test_interrupted_change_continues_and_is_never_visible(
    tmp_path: Path, first: int
) -> None:
    """A half changed file is never at its path, and no block is sent twice."""
    old, new = os.urandom(SIZE), os.urandom(SIZE)
    write_old(tmp_path / "big", old, 1_000_000_001)
    receiver = Receiver(os.fsencode(tmp_path / "staging"), os.fsencode(tmp_path))
    offer, _ = offer_previous_version(receiver, tmp_path)
    begun = SEGMENT.pack(0, first) + new[:first]
    with pytest.raises(ConnectionResetError):
        receive(
            receiver,
            offer,
            begun,
            b"",
            take=move_to_staging_from(receiver, tmp_path),
            cut=True,
        )

    assert not (tmp_path / "big").exists()
    again = Receiver(os.fsencode(tmp_path / "staging"), os.fsencode(tmp_path))
    offer = again.offer(offer.entry)
    assert blocks_of(new[:first] + old[first:]) == offer.blocks
    rest = new[first:]
    segments = SEGMENT.pack(0, UNCHANGED | first)
    segments += SEGMENT.pack(first, len(rest)) + rest if rest else b""
    whole = block_hashes.HashSum(SIZE)
    whole.update(new)
    (landed,) = receive(again, offer, segments, whole.digest())
    assert landed.name is not None
    assert new == (tmp_path / "staging" / os.fsdecode(landed.name)).read_bytes()


@pytest.mark.parametrize("seed", range(3))
def test_push_makes_files_equal_after_any_history(
    agent_box: AgentBox, tmp_path: Path, seed: int
) -> None:
    """After any changes and broken transfers, a complete push makes both ends equal."""
    chance = random.Random(seed)
    here, there = tmp_path / "big", agent_box.work / "big"
    incoming = agent_box.root / "files" / "incoming"
    left: list[str] = []
    data = chance.randbytes(SIZE // 2)
    for step in range(12):
        at = chance.randrange(len(data))
        data = chance.choice(
            [
                data[:at] + chance.randbytes(9) + data[at + 9 :],
                data + chance.randbytes(chance.choice([1, MIB, 2 * MIB + 5])),
                data[: -chance.choice([1, MIB])] or data,
                data[: at // MIB * MIB] + bytes(MIB) + data[at // MIB * MIB + MIB :],
                chance.randbytes(block_hashes.BIG + chance.choice([0, 1, MIB])),
            ]
        )
        write_old(here, data, 1_000_000_001 + step)
        if there.exists() and chance.random() < 0.3:
            there.write_bytes(chance.randbytes(chance.choice([5, SIZE])))
        link = agent_box.connect()
        if chance.random() < 0.5:
            over = threading.Event()
            cut = threading.Thread(target=kill_during_push, args=(link, incoming, over))
            cut.start()
            with contextlib.suppress(ConnectionLost):
                push_files.push(link, tmp_path, [b"big"], tmp_path / "index", quiet)
            over.set()
            cut.join()
            left += [path.name[:8] for path in incoming.glob("*")]
            link = agent_box.connect()
        push_files.push(link, tmp_path, [b"big"], tmp_path / "index", quiet)
        assert data == there.read_bytes()
        assert [] == list(incoming.iterdir())
    assert left


def test_file_that_changes_while_it_is_sent_keeps_its_received_blocks(
    agent_box: AgentBox, tmp_path: Path
) -> None:
    """A file that changes while it is sent is not sent again as a whole."""
    link = agent_box.connect()
    old = os.urandom(SIZE)
    push_big(link, tmp_path, old, 1_000_000_001)
    write_old(tmp_path / "big", CHANGES["middle"](old), 1_000_000_777)
    writes = iter(range(1))

    def meanwhile(*numbers: int) -> None:
        for _ in writes:
            write_old(tmp_path / "big", CHANGES["last byte"](old), 1_000_000_888)

    done = push_files.push(link, tmp_path, [b"big"], tmp_path / "index", meanwhile)

    assert (tmp_path / "big").read_bytes() == (agent_box.work / "big").read_bytes()
    assert done.sent_bytes < 6 * MIB


@pytest.mark.parametrize("hole", ["inside", "at the end"])
def test_gap_in_a_file_changed_in_place_is_no_hole(tmp_path: Path, hole: str) -> None:
    """A gap in a file that is changed in place does not count as zeros."""
    write_old(tmp_path / "big", os.urandom(SIZE), 1_000_000_001)
    receiver = Receiver(os.fsencode(tmp_path / "staging"), os.fsencode(tmp_path))
    offer, _ = offer_previous_version(receiver, tmp_path)
    data = os.urandom(MIB)
    at = SIZE - MIB if hole == "inside" else 0
    whole = block_hashes.HashSum(SIZE)
    whole.update(data.rjust(SIZE, b"\0") if at else data.ljust(SIZE, b"\0"))
    segments = SEGMENT.pack(at, MIB) + data
    take = move_to_staging_from(receiver, tmp_path)

    assert [] == receive(receiver, offer, segments, whole.digest(), take=take)
    assert [b"big"] == receiver.bad


def kill_during_push(link: AgentChannel, incoming: Path, over: threading.Event) -> None:
    """Kill the agent as soon as its staging directory has a file."""
    while not over.is_set():
        if any(incoming.glob("*")):
            link.process.kill()
            return


def blocks_of(data: bytes) -> bytes:
    """Return the hashes of the blocks of a big file."""
    whole = block_hashes.HashSum(len(data))
    whole.update(data)
    whole.digest()
    return whole.blocks


def move_to_staging_from(receiver: Receiver, folder: Path) -> MoveToStaging:
    """Return the function that moves a file of this folder to staging."""

    def take(path: bytes, name: bytes) -> None:
        os.rename(os.fsencode(folder / os.fsdecode(path)), name, dst_dir_fd=receiver.fd)

    return take


def offer_previous_version(receiver: Receiver, folder: Path) -> tuple[FileOffer, bytes]:
    """Return the offer of the file "big" as the previous version, and its hash."""
    index = Index()
    entry = scan(os.fsencode(folder), [b"big"], index, hashing=True).entries[0]
    offer = receiver.with_blocks(FileOffer(entry._replace(sha=None)), index)
    assert offer.blocks
    assert entry.sha is not None
    return offer, entry.sha


def receive(
    receiver: Receiver,
    offer: FileOffer,
    segments: bytes,
    sha: bytes,
    *,
    take: MoveToStaging | None = None,
    cut: bool = False,
) -> list[Landed]:
    """Pass one record, or its beginning, to a receiver; return the completed files."""
    path = offer.entry.path
    record = record_head(path, 0) + segments
    frames = [(b"D", record if cut else record + END.pack(0, 0, b"+", sha))]
    coming = iter([*frames, (b"Z", b"")])

    def next_frame() -> tuple[bytes, bytes]:
        kind, payload = next(coming)
        if cut and kind == b"Z":
            raise ConnectionResetError
        return kind, payload

    landed: list[Landed] = []
    receiver.receive(next_frame, {path: offer}, landed.append, take=take)
    return landed
