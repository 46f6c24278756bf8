"""Download into a staging directory the outputs that differ from the local files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from onebox import formatting
from onebox.agent.file_names import Hostile, text
from onebox.agent.files import manifest, manifest_exchange
from onebox.agent.files.content_stream import FileOffer
from onebox.agent.files.hash_index import Index
from onebox.agent.files.manifest import Entry
from onebox.agent.files.receiver import Landed, Receiver
from onebox.agent.files.striping import Frame, Stripes
from onebox.errors import OutputsHeld
from onebox.remote.channel import AgentChannel, AgentError
from onebox.transfer.parallel_connections import ParallelConnections
from onebox.transfer.progress import Meter, Progress


@dataclass(frozen=True)
class Downloaded:
    """
    The result of a download; the keys of each dictionary are paths.

    *hashes* holds the hash of each downloaded file, and of each local file that the box
    has confirmed as equal. *staged* holds the name that each downloaded file has in the
    staging directory. *blocks* holds the block hashes of each big file. *bad* lists the
    files that did not arrive, because they had changed on the box before they were
    sent.
    """

    hashes: dict[bytes, bytes] = field(default_factory=dict)
    staged: dict[bytes, bytes] = field(default_factory=dict)
    blocks: dict[bytes, bytes] = field(default_factory=dict)
    bad: list[bytes] = field(default_factory=list)


def download(
    channel: AgentChannel,
    entries: list[Entry],
    here: list[Entry],
    into: Path,
    index: Index,
    receiver: Receiver,
    progress: Progress,
) -> Downloaded:
    """
    Download the files among *entries* that are missing here or differ.

    Args:
        here: Local entries that were scanned a moment ago and are not scanned again.

        into: The folder of the local files; *index* holds their hashes.

    Raises:
        OutputsHeld: The disk has too little space, or the box cannot send a file or
            sends invalid data.
    """
    offers = _offers(entries, here, into, index, receiver)
    need = sum(o.entry.size - o.offset for o in offers.values())
    need += need // 20
    free = shutil.disk_usage(receiver.fd).free
    if need > free:
        raise OutputsHeld(
            f"need {formatting.byte_count(need)}, have "
            f"{formatting.byte_count(free)} on the disk of {into}"
        )
    downloaded = Downloaded()
    meter = Meter(progress, list(offers.values()))

    def land(landed: Landed) -> None:
        entry = landed.entry
        meter.done += 1
        assert entry.sha is not None
        downloaded.hashes[entry.path] = entry.sha
        if landed.name is not None:
            os.fchmod(landed.fd, entry.mode)
            os.utime(landed.fd, ns=(entry.mtime_ns, entry.mtime_ns))
            downloaded.staged[entry.path] = landed.name
        if landed.blocks:
            downloaded.blocks[entry.path] = landed.blocks

    receiver.bad.clear()
    if offers:
        _transfer(channel, offers, receiver, land, meter)
    downloaded.bad.extend(receiver.bad)
    if not downloaded.bad:
        meter.finish()
    return downloaded


def _offers(
    entries: list[Entry],
    here: list[Entry],
    into: Path,
    index: Index,
    receiver: Receiver,
) -> dict[bytes, FileOffer]:
    """
    Return, by path, an offer for each file whose content or hash the box must send.

    An offer tells the box how much of the file is here already.
    """
    base = os.fsencode(into)
    local = {entry.path: entry for entry in here}
    other_paths = (entry.path for entry in entries if entry.path not in local)
    scanned = manifest.scan(base, other_paths, index, hashing=False)
    local.update((entry.path, entry) for entry in scanned.entries)
    offers: dict[bytes, FileOffer] = {}
    for entry in entries:
        mine = local.get(entry.path)
        # For an unchanged file, `request_manifest` returns the same object that is in
        # *here*. So it is enough to compare whether both are the same object.
        if entry.kind != "f" or entry is mine:
            continue
        offer = receiver.needed(entry, mine, index)
        if offer is not None:
            offers[entry.path] = offer
    return offers


def _transfer(
    channel: AgentChannel,
    offers: dict[bytes, FileOffer],
    receiver: Receiver,
    land: Callable[[Landed], None],
    meter: Meter,
) -> None:
    channel.begin("send")
    manifest_exchange.send_rows(
        channel.send,
        (
            [text(path), offer.entry.size, offer.entry.mtime_ns, *offer.to_json()]
            for path, offer in offers.items()
        ),
    )
    frames = channel.frames(beats=True)
    connections = ParallelConnections(channel)
    try:
        receiver.receive(
            _striped_frames(channel, frames, connections, meter),
            offers,
            land,
            meter.moved,
        )
        next(frames)
    except Hostile as error:
        channel.close()
        raise OutputsHeld(f"invalid outputs from the box: {error}") from error
    except AgentError as error:
        raise OutputsHeld(f"the box cannot send its outputs: {error}") from error
    except OSError:
        # No one reads the frames that the box still sends, so the channel cannot be
        # used again.
        channel.close()
        raise
    finally:
        connections.close()


def _striped_frames(
    channel: AgentChannel,
    first: Iterator[Frame],
    connections: ParallelConnections,
    meter: Meter,
) -> Callable[[], Frame]:
    """
    Return a function that waits for the next frame and returns it.

    The function reads from all connections in turn, and adds further ones that are
    ready.
    """
    stripes = Stripes(first)
    announced: dict[bytes, Iterator[Frame]] = {}

    def frames() -> Frame:
        while True:
            kind, payload = next(stripes.next())
            if kind == b"P":
                continue
            if kind != b"L":
                break
            if payload not in announced:
                raise Hostile("an unknown stripe")
            stripes.add(announced.pop(payload))
        extra = connections.count(len(payload), meter.left)
        if extra is not None:
            announced[extra.name] = extra.frames
            channel.send(b"L", extra.name)
        return kind, payload

    return frames
