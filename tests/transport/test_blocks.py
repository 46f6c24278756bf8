"""Of a big file that has changed, only what has changed travels."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from onebox.agent.manifest import Entry
from onebox.agent.names import Hostile
from onebox.agent.receiver import Receiver
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


def test_a_file_that_has_gone_meanwhile(tmp_path: Path) -> None:
    """
    If the old file is not as it was offered, the new one does not land.
    """
    old = tmp_path / "big"
    old.write_bytes(os.urandom(SIZE))
    receiver = Receiver(os.fsencode(tmp_path / "staging"), os.fsencode(tmp_path))
    entry = Entry(b"big", "f", 0o644, SIZE)
    offer = receiver.compared(Offer(entry), entry)
    assert offer.blocks
    old.write_bytes(b"short")
    record = head(b"big", 0) + SEGMENT.pack(0, SAME | SIZE)
    record += END.pack(0, 0, b"+", bytes(32))
    frames = iter([(b"D", record), (b"Z", b"")])
    landed: list[object] = []
    receiver.receive(lambda: next(frames), {b"big": offer}, landed.append)

    assert ([b"big"], []) == (receiver.bad, landed)
