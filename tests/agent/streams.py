"""Files and streams that the tests of the agent's files share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from hypothesis import strategies as st

from onebox.agent.files import manifest
from onebox.agent.files.content_stream import FileOffer
from onebox.agent.files.hash_index import Index
from onebox.agent.files.manifest import Entry
from onebox.agent.files.receiver import Landed, Receiver
from onebox.agent.files.sender import Sender

OLD = 1_600_000_000_123_456_789


names = st.binary(min_size=1, max_size=40).filter(lambda name: b"\0" not in name)


def old_file(folder: Path) -> Path:
    """Create a file that was last written long ago."""
    path = folder / "f"
    path.touch()
    os.utime(path, ns=(OLD, OLD))
    return path


def scan_files(base: Path) -> list[Entry]:
    """Return the entries of the regular files directly in a folder."""
    paths = [os.fsencode(path.name) for path in base.iterdir() if path.is_file()]
    return manifest.scan(os.fsencode(base), paths, Index(), hashing=False).entries


def sent_frames(base: Path, offers: list[FileOffer]) -> Iterator[bytes]:
    """Return the payloads that a sender sends for these offers."""
    out: list[bytes] = []
    sender = Sender(os.fsencode(base), out.append)
    for offer in offers:
        sender.send(offer)
    sender.flush()
    return iter(out)


def receive(
    receiver: Receiver, payloads: list[bytes], offers: list[FileOffer]
) -> list[Landed]:
    """Pass these payloads to a receiver; return the files that it completed."""
    landed: list[Landed] = []
    receiver.receive(
        frames_of(payloads),
        {offer.entry.path: offer for offer in offers},
        landed.append,
    )
    return landed


def frames_of(payloads: list[bytes]) -> Callable[[], tuple[bytes, bytes]]:
    """Return a function that returns these payloads as D frames, then a Z frame."""
    frames = iter([*((b"D", payload) for payload in payloads), (b"Z", b"")])
    return lambda: next(frames)


def transfer(
    base: Path, staging: Path, offers: Iterator[FileOffer]
) -> dict[bytes, Path]:
    """Send files to a staging directory; return the path of each one there."""
    places: dict[bytes, Path] = {}
    receiver = Receiver(os.fsencode(staging), keep=-1)
    expected = list(offers)

    def land(landed: Landed) -> None:
        assert landed.name is not None
        places[landed.entry.path] = staging / os.fsdecode(landed.name)

    receiver.receive(
        frames_of(list(sent_frames(base, expected))),
        {offer.entry.path: offer for offer in expected},
        land,
    )
    assert not receiver.bad
    return places
