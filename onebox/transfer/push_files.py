"""
Make the files on the box equal to the local ones; send only files that differ.

A push without changes takes one round trip, any other push at most three. A broken
connection raises `ConnectionLost`; the same call over a new channel continues the push.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Union

from onebox import formatting
from onebox.agent import protocol
from onebox.agent.file_names import Hostile, show
from onebox.agent.files import manifest, manifest_exchange
from onebox.agent.files.content_stream import Compressor, FileOffer
from onebox.agent.files.hash_index import Index, Unstable, hash_file
from onebox.agent.files.manifest import Entry
from onebox.agent.files.sender import Sender
from onebox.agent.files.striping import Stripes
from onebox.errors import BoxFailed, ConnectionLost, InputError, Lost, ProtocolError
from onebox.remote import answers
from onebox.remote.answers import PushResult
from onebox.remote.channel import AgentChannel, AgentError
from onebox.store.atomic_files import private_dir
from onebox.transfer.difference import Difference
from onebox.transfer.parallel_connections import ParallelConnections
from onebox.transfer.progress import Meter, Progress

# How many times at most the manifests are compared and files are sent. Files that
# change during a push need another pass.
PASSES = 3
# The files to push: their paths, or a function that selects them and returns entries.
Files = Union[Sequence[bytes], Callable[[Index], list[Entry]]]


@dataclass(frozen=True)
class Pushed:
    """
    The result of a push.

    *files* and *bytes* count everything that was selected. *sent_files* and
    *sent_bytes* count only what was transferred. *is_first* says whether the box had
    none of these files as they are here.
    """

    files: int
    bytes: int
    sent_files: int
    sent_bytes: int
    deleted: int
    is_first: bool
    digest: str


def difference(
    channel: AgentChannel, root: Path, files: Files, index: Path
) -> Difference:
    """Return how the files on the box differ from the local ones."""
    conversation = _Conversation(channel)
    hash_index = _load_index(index)
    entries = _local_entries(root, files, hash_index)
    try:
        conversation.compare(entries)
        if conversation.equal:
            return Difference(entries)
        differing = set(conversation.without_contents)
        contents = set()
        for offer in conversation.offers:
            if not _is_equal(root, offer, hash_index):
                contents.add(offer.entry.path)
        conversation.finish()
    finally:
        hash_index.save()
    return Difference(entries, differing | contents, contents, conversation.gone)


def push(
    channel: AgentChannel,
    root: Path,
    files: Files,
    index: Path,
    progress: Progress,
    kind: str = "pushed",
    before_sending: Callable[[list[Entry]], None] = lambda entries: None,
    downloads: bool = False,
) -> Pushed:
    """
    Send these files to the box, and remove all other files of earlier pushes from it.

    Args:
        files: If this is a function, it is called while the box scans its own files.

        kind: "pushed" for the project's files, "restored" for checkpoints from an
            earlier box: a push of one kind never removes files of the other.

        before_sending: Called with the files whose contents are about to be sent. The
            size of a file is the number of bytes that an earlier attempt has not sent.

        downloads: Whether the box keeps the files that it has downloaded; see
            `data_download`.

    Raises:
        InputError: Files kept changing while they were sent; the error names the first
            few of them.

        ConnectionLost: A call with a new channel continues the push.
    """
    sent_files = sent_bytes = deleted = 0
    is_first = False
    for _ in range(PASSES):
        conversation = _Conversation(channel, "write", kind, downloads)
        hash_index = _load_index(index)
        entries = _local_entries(root, files, hash_index)
        connections = ParallelConnections(channel)
        try:
            conversation.compare(entries)
            meter = Meter(progress)
            changed: list[bytes] = []
            digest = conversation.digest
            if not conversation.equal:
                meter = Meter(progress, conversation.offers)
                is_first = is_first or conversation.lacks_all(entries)
                before_sending([_to_send(offer) for offer in conversation.offers])
                contents = _Contents(conversation, connections, root, meter)
                hashes, changed = contents.send(hash_index)
                sent_files += meter.carried
                sent_bytes += meter.carried_bytes
                entries = manifest.with_hashes(entries, hashes)
                digest = manifest.digest(entries)
            result = conversation.finish()
        finally:
            connections.close()
            hash_index.save()
        deleted += result.deleted
        # If the box has found its files equal, it may report the digest of an older
        # push of the same files. So the digests are compared only in the other case.
        if not changed and (result.equal or result.digest == digest):
            meter.finish()
            hash_index.retain(entry.path for entry in entries)
            hash_index.save()
            return Pushed(
                files=sum(entry.kind != "d" for entry in entries),
                bytes=sum(entry.size for entry in entries),
                sent_files=sent_files,
                sent_bytes=sent_bytes,
                deleted=deleted,
                is_first=is_first,
                digest=digest,
            )
    if changed:
        shown = formatting.first_names([show(path) for path in changed])
        raise InputError(f"still changing while being pushed: {shown}")
    raise Lost("the files on the box do not become equal to the ones here")


def digest(root: Path, files: Files, index: Path) -> str:
    """Return the digest of the manifest of the local files."""
    hash_index = _load_index(index)
    paths = [entry.path for entry in _local_entries(root, files, hash_index)]
    scanned = manifest.scan(os.fsencode(root), paths, hash_index, hashing=True)
    hash_index.save()
    if scanned.unstable:
        shown = formatting.first_names([show(path) for path in scanned.unstable])
        raise InputError(f"being written to while read: {shown}")
    _check_readable(scanned)
    return manifest.digest(scanned.entries)


class _Conversation:
    """
    One exchange of manifests with the box.

    After `compare`, *equal* says whether the box has the same files. If it is False,
    *offers* has the files to send. *without_contents* has the paths that the box can
    create or change without file contents. *gone* has the files of an earlier push that
    are not selected any more. *digest* is the digest of the local manifest, in which
    unknown hashes are left out; it is "" if no hash is known.
    """

    def __init__(
        self,
        channel: AgentChannel,
        mode: str = "compare",
        kind: str = "pushed",
        downloads: bool = True,
    ) -> None:
        self.channel = channel
        self.gone: list[bytes] = []
        self.without_contents: list[bytes] = []
        self.offers: list[FileOffer] = []
        self.equal = False
        self.digest = ""
        self._result: PushResult | None = None
        # The request is sent now, so that the box scans its files while the caller
        # scans the local ones.
        write = mode == "write"
        channel.begin("push", write=write, kind=kind, downloads=downloads)
        self._frames = channel.frames()

    def lacks_all(self, entries: list[Entry]) -> bool:
        """Return whether none of these files is on the box as it is here."""
        differ = {*self.without_contents, *(one.entry.path for one in self.offers)}
        return all(entry.path in differ for entry in entries if entry.kind != "d")

    def compare(self, entries: list[Entry]) -> None:
        """Send the local manifest, and receive what differs on the box."""
        channel = self.channel
        hashes = b""
        if any(entry.sha is not None for entry in entries):
            hashes, self.digest = manifest_exchange.bucket_hashes(entries)
        channel.send(b"D", hashes)
        fresh = entries
        try:
            if hashes:
                kind, payload = self.next_frame()
                if kind == b"A":
                    self._result = PushResult.parse(protocol.loads(payload))
                    self.equal = True
                    return
                if kind != b"S":
                    raise Hostile(f"unexpected frame {kind!r}")
                count = len(hashes) // manifest_exchange.BUCKET_HASH
                buckets = answers.buckets(protocol.loads(payload), count)
                fresh = manifest_exchange.entries_in(entries, buckets, hashes)
            manifest_exchange.send_rows(
                channel.send, map(manifest_exchange.pack_entry, fresh)
            )
            self._receive_rows(entries)
        except Hostile as error:
            raise ProtocolError(
                f"the box sent an invalid list of files: {error}"
            ) from error

    def next_frame(self) -> tuple[bytes, bytes]:
        """Wait for the next frame from the box."""
        try:
            return next(self._frames)
        except AgentError as error:
            if error.kind == "disk":
                raise BoxFailed(error.message) from error
            raise

    def finish(self) -> PushResult:
        """Return the answer of the box, which ends the conversation."""
        if self._result is None:
            kind, payload = self.next_frame()
            if kind != b"A":
                raise ProtocolError(f"expected an answer from the box, got {kind!r}")
            self._result = PushResult.parse(protocol.loads(payload))
        return self._result

    def _receive_rows(self, entries: list[Entry]) -> None:
        by_path = {entry.path: entry for entry in entries}
        seen: set[tuple[bytes, str]] = set()
        for row in manifest_exchange.receive_rows(self.next_frame):
            path, kind, offered = answers.push_row(row)
            if (path, kind) in seen:
                raise Hostile(f"{show(path)} appears twice")
            seen.add((path, kind))
            entry = by_path.get(path)
            if kind == "gone":
                self.gone.append(path)
            elif entry is None:
                raise Hostile(f"{show(path)} was not pushed")
            elif kind == "change":
                self.without_contents.append(path)
            else:
                self.offers.append(answers.offer(entry, offered))


class _Contents:
    """Sends the contents that the box lacks, over one or more connections."""

    def __init__(
        self,
        conversation: _Conversation,
        connections: ParallelConnections,
        root: Path,
        meter: Meter,
    ) -> None:
        self._conversation = conversation
        self._channel = conversation.channel
        self._connections = connections
        self._root = os.fsencode(root)
        self._meter = meter
        self._stripes = Stripes(conversation.channel)
        self._compressor = Compressor(self._send_frame)

    def send(self, index: Index) -> tuple[dict[bytes, bytes], list[bytes]]:
        """Send all offered files; return their hashes, and the files that changed."""
        hashes: dict[bytes, bytes] = {}
        changed = []
        sender = Sender(self._root, self._write, self._moved)
        for offer in self._conversation.offers:
            hashed = sender.send(offer)
            self._meter.done += 1
            if hashed is None:
                changed.append(offer.entry.path)
                continue
            index.put(offer.entry.path, *hashed)
            hashes[offer.entry.path] = hashed.sha
            self._meter.carried += not (offer.whole and offer.sha == hashed.sha)
        sender.flush()
        self._stripes.next().send(b"Z")
        return hashes, changed

    def _write(self, payload: bytes) -> None:
        self._compressor(payload)
        self._meter.carried_bytes += len(payload)

    def _send_frame(self, kind: bytes, payload: bytes) -> None:
        stripe = self._stripes.next()
        try:
            stripe.send(kind, payload)
        except ConnectionLost:
            # When the box refuses the push, it closes the further connections and sends
            # the refusal on the first one. The refusal says more than the lost
            # connection does, so it is read here. Reading it raises it as an error.
            if stripe is not self._channel and self._channel.has_frame(wait=2):
                self._conversation.next_frame()
            raise
        extra = self._connections.count(len(payload), self._meter.left)
        if extra is not None:
            self._stripes.next().send(b"L", extra.name)
            self._stripes.add(extra.channel)

    def _moved(self, count: int) -> None:
        # While contents are being sent, the box sends keep-alives and refusals only.
        if self._meter.moved(count) and self._channel.has_frame():
            self._conversation.next_frame()


def _to_send(offer: FileOffer) -> Entry:
    """Return the entry of an offer without the bytes that were received before."""
    received = 0 if offer.whole else offer.offset
    return offer.entry._replace(size=max(offer.entry.size - received, 0))


def _is_equal(root: Path, offer: FileOffer, index: Index) -> bool:
    """Return whether the box has the whole file, with the hash of the local file."""
    if not offer.whole:
        return False
    try:
        hashed = hash_file(os.fsencode(root) + b"/" + offer.entry.path)
    except (OSError, Unstable):
        return False
    index.put(offer.entry.path, *hashed)
    return hashed.sha == offer.sha


def _local_entries(root: Path, files: Files, index: Index) -> list[Entry]:
    if callable(files):
        return files(index)
    scanned = manifest.scan(os.fsencode(root), files, index, hashing=False)
    _check_readable(scanned)
    return scanned.entries


def _check_readable(scanned: manifest.Scan) -> None:
    if scanned.unreadable:
        shown = formatting.first_names([show(path) for path in scanned.unreadable], 5)
        raise InputError(f"cannot be read: {shown}")


def _load_index(file: Path) -> Index:
    private_dir(file.parent)
    return Index(os.fsencode(file))
