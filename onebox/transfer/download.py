"""Receive into a staging directory what the box has and this machine lacks."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from onebox import formatting
from onebox.agent.file_names import Hostile, text
from onebox.agent.files import manifest, row_codec
from onebox.agent.files.hash_index import Index
from onebox.agent.files.manifest import Entry
from onebox.agent.files.receiver import Landed, Receiver
from onebox.agent.files.stream import Offer
from onebox.agent.files.striping import Stripes
from onebox.errors import OutputsHeld
from onebox.remote.channel import AgentChannel, AgentError
from onebox.transfer.parallel_connections import Frame, Widening
from onebox.transfer.progress import Meter, Progress


@dataclass(frozen=True)
class Brought:
    """
    What has come: its hashes, and its names in the staging directory, by path.

    *blocks* are the hashes of big files' blocks; *bad* did not come as announced.
    """

    hashes: dict[bytes, bytes] = field(default_factory=dict)
    staged: dict[bytes, bytes] = field(default_factory=dict)
    blocks: dict[bytes, bytes] = field(default_factory=dict)
    bad: list[bytes] = field(default_factory=list)


def bring(
    channel: AgentChannel,
    entries: list[Entry],
    seen: list[Entry],
    into: Path,
    known: Index,
    receiver: Receiver,
    progress: Progress,
) -> Brought:
    """Receive what is not here; *seen* has been found here a moment ago."""
    offers: dict[bytes, Offer] = {}
    base = os.fsencode(into)
    here = {entry.path: entry for entry in seen}
    paths = (entry.path for entry in entries if entry.path not in here)
    found = manifest.scan(base, paths, known, hashing=False)
    here.update((entry.path, entry) for entry in found.entries)
    for entry in entries:
        mine = here.get(entry.path)
        # What the box has as it is here is the very entry that was found here.
        if entry.kind == "f" and entry is not mine:
            sha = _local_hash(base, mine, entry, known)
            if sha is None or (entry.sha is not None and entry.sha != sha):
                offer = receiver.offer(entry)
            elif entry.sha is None:
                offer = Offer(entry, entry.size, sha, whole=True)
            else:
                continue
            if mine is not None:
                offer = receiver.compared(offer, known)
            offers[entry.path] = offer
    need = sum(o.entry.size - o.offset for o in offers.values())
    free = shutil.disk_usage(receiver.fd).free
    if need + need // 20 > free:
        raise OutputsHeld(
            f"need {formatting.byte_count(need + need // 20)}, have "
            f"{formatting.byte_count(free)} "
            f"on the disk of {into}"
        )
    brought = Brought()
    meter = Meter(progress, list(offers.values()))

    def land(landed: Landed) -> None:
        entry = landed.entry
        meter.done += 1
        assert entry.sha is not None
        brought.hashes[entry.path] = entry.sha
        if landed.name is not None:
            os.fchmod(landed.fd, entry.mode)
            os.utime(landed.fd, ns=(entry.mtime_ns, entry.mtime_ns))
            brought.staged[entry.path] = landed.name
        if landed.blocks:
            brought.blocks[entry.path] = landed.blocks

    receiver.bad.clear()
    if offers:
        _transfer(channel, offers, receiver, land, meter)
    brought.bad.extend(receiver.bad)
    if not brought.bad:
        meter.finish()
    return brought


def _transfer(
    channel: AgentChannel,
    offers: dict[bytes, Offer],
    receiver: Receiver,
    land: Callable[[Landed], None],
    meter: Meter,
) -> None:
    channel.begin("send")
    row_codec.send_rows(
        channel.send,
        (
            [text(path), offer.entry.size, offer.entry.mtime_ns, *offer.told()]
            for path, offer in offers.items()
        ),
    )
    frames = channel.frames(beats=True)
    wide = Widening(channel)
    try:
        receiver.receive(
            _by_turns(channel, frames, wide, meter), offers, land, meter.moved
        )
        next(frames)
    except Hostile as error:
        channel.close()
        raise OutputsHeld(f"the box sent what cannot be taken: {error}") from error
    except AgentError as error:
        raise OutputsHeld(f"the box cannot send its outputs: {error}") from error
    except OSError:
        # The rest of the stream is of no use: nobody will read it.
        channel.close()
        raise
    finally:
        wide.close()


def _by_turns(
    channel: AgentChannel, first: Iterator[Frame], wide: Widening, meter: Meter
) -> Callable[[], Frame]:
    """Return what waits for the next frame, from the lane whose turn it is."""
    lanes = Stripes(first)
    coming: dict[bytes, Iterator[Frame]] = {}

    def frames() -> Frame:
        while True:
            kind, payload = next(lanes.next())
            if kind == b"P":
                continue
            if kind != b"L":
                break
            if payload not in coming:
                raise Hostile("a lane that nobody has opened")
            lanes.add(coming.pop(payload))
        fresh = wide.lane(len(payload), meter.left)
        if fresh is not None:
            coming[fresh.name] = fresh.frames
            channel.send(b"L", fresh.name)
        return kind, payload

    return frames


def _local_hash(
    base: bytes, mine: Entry | None, entry: Entry, known: Index
) -> bytes | None:
    """Return the hash of the file that is here, if it could be the same."""
    if mine is None or (mine.kind, mine.size) != ("f", entry.size):
        return None
    if mine.sha is not None:
        return mine.sha
    hashed = manifest.scan(base, [entry.path], known, hashing=True)
    return hashed.entries[0].sha if hashed.entries else None
