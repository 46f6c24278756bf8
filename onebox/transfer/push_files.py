"""
Make the box's files equal to ours, judged by manifest.

Nothing changed costs one round trip, a change at most three. A connection that
breaks raises `ConnectionLost`; the same call over a new link goes on from there.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Union

from onebox import formatting
from onebox.agent import protocol
from onebox.agent.file_names import Hostile, show
from onebox.agent.files import manifest, manifest_buckets, row_codec
from onebox.agent.files.compression import Squeezer
from onebox.agent.files.hash_index import Index, Unstable, read_hash
from onebox.agent.files.manifest import Entry
from onebox.agent.files.sender import Sender
from onebox.agent.files.stream import Offer
from onebox.agent.files.striping import Stripes
from onebox.errors import BoxFailed, ConnectionLost, InputError, Lost, ProtocolError
from onebox.remote import answers
from onebox.remote.answers import Differing, PushResult
from onebox.remote.channel import AgentChannel, AgentError
from onebox.store.atomic_files import private_dir
from onebox.transfer.fetch_outputs import Fetched, Verified, changed_here, fetch, verify
from onebox.transfer.parallel_connections import Widening
from onebox.transfer.progress import Meter, Progress, listing

__all__ = [
    "Fetched",
    "Progress",
    "Pushed",
    "Verified",
    "changed_here",
    "difference",
    "digest",
    "fetch",
    "push",
    "verify",
]

PASSES = 3
# Paths, or what chooses files and says what of them is known.
Files = Union[Sequence[bytes], Callable[[Index], list[Entry]]]


@dataclass(frozen=True)
class Pushed:
    """What a push came to; *files* and *bytes* are all that belongs there."""

    files: int
    bytes: int
    sent_files: int
    sent_bytes: int
    deleted: int
    digest: str


def difference(
    channel: AgentChannel, root: Path, files: Files, index: Path
) -> str | None:
    """Say how the box's files differ from ours; None if they do not."""
    answer = _Answer(channel, write=False)
    known = _index(index)
    entries = _local(root, files, known)
    try:
        answer.about(entries)
        if answer.equal:
            return None
        differing = set(answer.settle)
        for offer in answer.offers:
            if not _equal(root, offer, known):
                differing.add(offer.entry.path)
        answer.end()
    finally:
        known.save()
    gone = [show(path) for path in answer.gone]
    reasons = [*_differing(entries, differing)]
    if gone:
        reasons.append(f"{len(gone):,} deleted: {listing(gone)}")
    return "; ".join(reasons) or None


def _differing(entries: list[Entry], paths: set[bytes]) -> Iterator[str]:
    """Say which files differ, or which folders where no file does."""
    files = [e.path for e in entries if e.kind != "d"]
    names = [path for path in files if path in paths]
    what = f"{len(names):,} of {formatting.count(len(files), 'file')}"
    if not names:
        names = sorted(paths)
        what = formatting.count(len(names), "folder")
    if names:
        verb = "differs" if len(names) == 1 else "differ"
        yield f"{what} {verb}: {listing([show(path) for path in names])}"


def push(
    channel: AgentChannel,
    root: Path,
    files: Files,
    index: Path,
    progress: Progress,
    what: str = "pushed",
) -> Pushed:
    """
    Bring these files to the box, remove what an earlier push left beyond them.

    Args:
        files: They are chosen while the box looks at what it has.

        what: They are "pushed", or "restored" from what an earlier box has left:
            neither removes what came as the other.

    Raises:
        InputError: Files kept changing while they were sent; it names them.

        ConnectionLost: Call again over a new link: it goes on from there.
    """
    sent_files = sent_bytes = deleted = 0
    for _ in range(PASSES):
        answer = _Answer(channel, write=True, what=what)
        known = _index(index)
        entries = _local(root, files, known)
        wide = Widening(channel)
        try:
            answer.about(entries)
            meter = Meter(progress)
            changed: list[bytes] = []
            whole = answer.digest
            if not answer.equal:
                meter = Meter(progress, answer.offers)
                hashes, changed = _send(channel, wide, root, answer, known, meter)
                sent_files += meter.carried
                sent_bytes += meter.carried_bytes
                entries = manifest.with_hashes(entries, hashes)
                whole = manifest.digest(entries)
            told = answer.end()
        finally:
            wide.close()
            known.save()
        deleted += told.deleted
        # Equal in all its parts the box is, though what it was told to be may be old.
        if not changed and (told.equal or told.digest == whole):
            meter.finish()
            known.keep(entry.path for entry in entries)
            known.save()
            return Pushed(
                files=sum(entry.kind != "d" for entry in entries),
                bytes=sum(entry.size for entry in entries),
                sent_files=sent_files,
                sent_bytes=sent_bytes,
                deleted=deleted,
                digest=whole,
            )
    if changed:
        raise InputError(
            f"still changing while being pushed: {listing(list(map(show, changed)))}"
        )
    raise Lost("the files on the box do not become equal to the ones here")


def digest(root: Path, files: Files, index: Path) -> str:
    """Return one hash over these files as they are here, whatever a box has."""
    known = _index(index)
    paths = [entry.path for entry in _local(root, files, known)]
    found = manifest.scan(os.fsencode(root), paths, known, hashing=True)
    known.save()
    if found.unstable:
        names = list(map(show, found.unstable))
        raise InputError(f"being written to while read: {listing(names)}")
    _readable(found)
    return manifest.digest(found.entries)


class _Answer:
    """
    What the box says to our manifest: *equal*, or what it lacks.

    *offers* are files to send, *settle* what it can see to itself, *gone* what
    it has from an earlier push and we no longer have. *digest* is our manifest's,
    as far as hashes were known.
    """

    def __init__(
        self, channel: AgentChannel, *, write: bool, what: str = "pushed"
    ) -> None:
        self.gone: list[bytes] = []
        self.settle: list[bytes] = []
        self.offers: list[Offer] = []
        self.equal = False
        self.digest = ""
        self._channel = channel
        # It looks at its files while we look at ours.
        channel.begin("push", write=write, what=what)
        self._frames = channel.frames()

    def about(self, entries: list[Entry]) -> None:
        """Tell the box what is here, and take in what it says to that."""
        channel = self._channel
        known = any(entry.sha is not None for entry in entries)
        hashes, self.digest = manifest_buckets.hashes(entries) if known else (b"", "")
        channel.send(b"D", hashes)
        fresh = entries
        by_path = {entry.path: entry for entry in entries}
        try:
            if known:
                kind, payload = self.next()
                if kind == b"A":
                    self._result = PushResult.parse(protocol.loads(payload))
                    self.equal = True
                    return
                if kind != b"S":
                    raise Hostile(f"a {kind!r} frame")
                count = len(hashes) // manifest_buckets.HASH
                differing = Differing.parse(protocol.loads(payload), count)
                fresh = manifest_buckets.within(entries, differing.parts, hashes)
            row_codec.send_rows(channel.send, map(row_codec.pack_entry, fresh))
            rows: set[tuple[bytes, str]] = set()
            for row in row_codec.receive_rows(self.next):
                self._take(row, by_path, rows)
        except Hostile as error:
            raise ProtocolError(f"the box sent no list of files: {error}") from error

    def next(self) -> tuple[bytes, bytes]:
        """Wait for the next frame."""
        try:
            return next(self._frames)
        except AgentError as error:
            raise _refusal(error) from error

    def end(self) -> PushResult:
        """Return the answer that ends the conversation."""
        if not self.equal:
            kind, payload = self.next()
            if kind != b"A":
                raise ProtocolError(f"the box sent a {kind!r} frame for an answer")
            self.equal = True
            self._result = PushResult.parse(protocol.loads(payload))
        return self._result

    def _take(
        self,
        row: object,
        by_path: dict[bytes, Entry],
        rows: set[tuple[bytes, str]],
    ) -> None:
        path, kind, rest = answers.push_row(row)
        if (path, kind) in rows:
            raise Hostile(f"{show(path)} comes twice")
        rows.add((path, kind))
        if kind == "gone":
            self.gone.append(path)
            return
        entry = by_path.get(path)
        if entry is None:
            raise Hostile(f"{show(path)} is no file of ours")
        if kind == "settle":
            self.settle.append(path)
        else:
            self.offers.append(answers.offer(entry, rest))


def _send(
    channel: AgentChannel,
    wide: Widening,
    root: Path,
    answer: _Answer,
    known: Index,
    meter: Meter,
) -> tuple[dict[bytes, bytes], list[bytes]]:
    """Send what the box lacks; return the hashes, and what had changed."""
    hashes: dict[bytes, bytes] = {}
    changed = []
    lanes = Stripes(channel)

    def send(kind: bytes, payload: bytes) -> None:
        lane = lanes.next()
        try:
            lane.send(kind, payload)
        except ConnectionLost:
            # A lane ends with the conversation: that may have been refused.
            if (
                lane is not channel
                and select.select([channel.wire.read_fd], [], [], 2)[0]
            ):
                answer.next()
            raise
        fresh = wide.lane(len(payload), meter.left)
        if fresh is not None:
            lanes.next().send(b"L", fresh.name)
            lanes.add(fresh.channel)

    squeeze = Squeezer(send)

    def write(payload: bytes) -> None:
        squeeze(payload)
        meter.carried_bytes += len(payload)

    def moved(count: int) -> None:
        # The only thing to come now is a refusal, and there is no use in going on.
        if meter.moved(count) and select.select([channel.wire.read_fd], [], [], 0)[0]:
            answer.next()

    sender = Sender(os.fsencode(root), write, moved)
    for offer in answer.offers:
        sent = sender.send(offer)
        meter.done += 1
        if sent is None:
            changed.append(offer.entry.path)
            continue
        known.put(offer.entry.path, *sent)
        hashes[offer.entry.path] = sent.sha
        meter.carried += not (offer.whole and offer.sha == sent.sha)
    sender.flush()
    lanes.next().send(b"Z")
    return hashes, changed


def _equal(root: Path, offer: Offer, known: Index) -> bool:
    if not offer.whole:
        return False
    try:
        found = read_hash(os.fsencode(root) + b"/" + offer.entry.path)
    except (OSError, Unstable):
        return False
    known.put(offer.entry.path, *found)
    return found.sha == offer.sha


def _local(root: Path, files: Files, known: Index) -> list[Entry]:
    if callable(files):
        return files(known)
    found = manifest.scan(os.fsencode(root), files, known, hashing=False)
    _readable(found)
    return found.entries


def _readable(found: manifest.Scan) -> None:
    if found.unreadable:
        names = list(map(show, found.unreadable))
        raise InputError(f"cannot be read: {listing(names, 5)} ({len(names)} in all)")


def _index(file: Path) -> Index:
    private_dir(file.parent)
    return Index(os.fsencode(file))


def _refusal(error: AgentError) -> Exception:
    if error.kind == "disk":
        return BoxFailed(error.message)
    return error
