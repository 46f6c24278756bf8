"""
The operations of push and fetch on the box.

====  ==============================  =======================================
op    arguments                       answer
====  ==============================  =======================================
push  write, what                     equal, digest, bad, deleted
scan  roots, hashing, unless,         buckets, missing, special, unreadable,
      beside, beyond                  unstable, nowhere, made, left, left_names
send  --                              --
====  ==============================  =======================================

`push` makes the files of one kind equal to the client's manifest. While both ends scan
their files, the client sends the hashes of its manifest's buckets in a D frame. If the
work folder has the same, the answer comes at once. Otherwise an S frame names the
buckets that differ, the client sends its entries of those, and the agent replies with
what it lacks. Without hashes, the client sends its whole manifest at once. If *write*
is set, the client then sends the contents. *what* is "pushed" for the project's files
and "restored" for checkpoints from an earlier box; a push of one kind never removes
files of the other.

`scan` sends the manifest of the outputs before its answer. If *unless* is set, the
client sends bucket hashes with times in a D frame, and only *buckets* that differ are
sent. A link to a path that is no output is replaced by what it leads to, unless
*beside* is set and the client has that path as it was pushed. *nowhere* lists links to
no file or folder. *made* is whether any output differs from what was pushed. *left* is
the number of new or changed files outside of the outputs; they are searched if *beyond*
is "always", or if it is "if-empty" and *made* is False.

`send` receives rows of files and sends their contents. The agent's own files for these
operations are in `files/` in its directory.
"""

from __future__ import annotations

import contextlib
import os
from typing import (
    Any,
    Callable,
    Dict,
)

from .. import protocol
from ..box import Box
from ..file_names import check_path, raw, text
from . import manifest, manifest_buckets, row_codec
from .apply_push import Push, push_lock, receiver_for
from .changes_since_push import MOST_NAMES, Changes
from .collect_outputs import OutputCollector, retargeted, root_path
from .compression import Compressor
from .content_stream import Offer
from .frame_streams import Frame, Incoming, Outgoing, Pulse, refusing
from .hash_index import Index
from .manifest import Entry
from .push_record import own_file
from .sender import Sender


def push(
    channel: protocol.Channel, box: Box, request: Dict[str, Any]
) -> Dict[str, Any]:
    """Compare the files of a push with the client's manifest, and make them equal."""
    write = bool(request["write"])
    with refusing(), contextlib.ExitStack() as stack:
        os.makedirs(box.path("files"), exist_ok=True)
        if write:
            stack.enter_context(push_lock(box))
        kind = "restored" if request.get("what") == "restored" else "pushed"
        frames = stack.enter_context(contextlib.closing(Incoming(channel, box)))
        push = Push(box, kind, Pulse(channel, box))
        stack.callback(push.save_index)
        present = push.present
        hashes = _receive_hashes(frames)
        differing = manifest_buckets.differing(present, hashes)
        if hashes:
            digest = push.record.digest
            if digest and not differing and len(present) == len(push.before):
                return {"equal": True, "digest": digest, "bad": [], "deleted": 0}
            channel.send_json(b"S", {"buckets": differing})
        entries = [
            row_codec.unpack_entry(row) for row in row_codec.receive_rows(frames)
        ]
        if hashes:
            entries = manifest_buckets.merged(present, entries, differing, hashes)
        manifest.check(entries)
        receiver = receiver_for(box, write=write)
        stack.callback(receiver.close)
        plan = push.plan(entries, receiver)
        if write:
            push.check_space(plan, receiver)
        row_codec.send_rows(channel.send, plan.rows())
        if not write:
            return {"equal": False, "digest": "", "bad": [], "deleted": 0}
        return push.apply(plan, receiver, frames)


def scan(
    channel: protocol.Channel, box: Box, request: Dict[str, Any]
) -> Dict[str, Any]:
    """Send the manifest of the outputs, with what links in them lead to."""
    with refusing():
        os.makedirs(box.path("files"), exist_ok=True)
        index = Index(own_file(box, "outputs.index"))
        work = os.fsencode(box.work)
        alive = Pulse(channel, box)
        changes = Changes(box, alive)
        # In any other folder the client has none of its pushed files.
        on_client = changes.as_pushed if request.get("beside") else lambda path: False
        outputs = OutputCollector(work, on_client).collect(request["roots"])
        scanned = manifest.scan(
            work,
            outputs.paths,
            index,
            hashing=bool(request["hashing"]),
            alive=alive,
            through=outputs.through,
        )
        index.save()
        # Without hashing no file was opened, so unreadable ones are not known yet.
        scanned.unreadable.extend(
            e.path for e in scanned.entries if e.kind == "f" and not _readable(work, e)
        )
        entries = retargeted(scanned.entries, outputs.targets)
        hashes = b""
        if request.get("unless"):
            hashes = _receive_hashes(Incoming(channel, box))
        differing = manifest_buckets.differing(entries, hashes, times=True)
        fresh = entries
        if hashes:
            fresh = manifest_buckets.within(entries, differing, hashes)
        row_codec.send_rows(channel.send, map(row_codec.pack_entry, fresh))
        # A link that leads nowhere is no result.
        nowhere = frozenset(outputs.nowhere)
        made = any(changes.is_new(e) for e in entries if e.path not in nowhere)
        when = request.get("beyond")
        left = []
        if when == "always" or (when == "if-empty" and not made):
            # The place of a root that is a link is where the link leads.
            places = {*outputs.places, *map(root_path, request["roots"])}
            left = changes.outside(places)
        return {
            "buckets": differing,
            "missing": outputs.missing,
            "special": [text(path) for path in scanned.special],
            "unreadable": [text(path) for path in scanned.unreadable],
            "unstable": [text(path) for path in scanned.unstable],
            "nowhere": [text(path) for path in outputs.nowhere],
            "made": made,
            "left": len(left),
            "left_names": [text(path) for path in left[:MOST_NAMES]],
        }


def send(
    channel: protocol.Channel, box: Box, request: Dict[str, Any]
) -> Dict[str, Any]:
    """Send the contents of the files that the client names."""
    with refusing(), contextlib.closing(Outgoing(channel, box)) as out:
        offers = []
        for row in row_codec.receive_rows(Incoming(channel, box)):
            path, size, mtime_ns, *offered = row
            entry = Entry(raw(path), "f", 0, size, mtime_ns)
            check_path(entry.path)
            offers.append(Offer.from_json(entry, *offered) if offered else Offer(entry))
        index = Index(own_file(box, "outputs.index"), adding=True)
        sender = Sender(
            os.fsencode(box.work),
            Compressor(out.send),
            lambda count: out.alive(),
            follow=True,
        )
        for offer in offers:
            hashed = sender.send(offer)
            if hashed is not None:
                index.put(offer.entry.path, *hashed)
        sender.flush()
        out.send(b"Z")
        index.save()
        return {}


OPS: Dict[str, Callable[[protocol.Channel, Box, Dict[str, Any]], Dict[str, Any]]] = {
    "push": push,
    "scan": scan,
    "send": send,
}


def _readable(work: bytes, entry: Entry) -> bool:
    # Most files are readable for all, and need no system call.
    readable_for_all = entry.mode & 0o444 == 0o444
    return readable_for_all or os.access(os.path.join(work, entry.path), os.R_OK)


def _receive_hashes(frames: Callable[[], Frame]) -> bytes:
    kind, payload = frames()
    if kind != b"D" or (payload and not manifest_buckets.are_valid(payload)):
        raise protocol.Refused("order", "expected bucket hashes, got frame %r" % kind)
    return payload
