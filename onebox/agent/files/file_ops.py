"""
The box's side of push and fetch.

====  ==============================  =======================================
op    arguments                       answer
====  ==============================  =======================================
push  write, what                     equal, digest, bad, deleted
scan  roots, hashing, unless,         parts, missing, special, unreadable, unstable,
      beside, beyond                  nowhere, made, left, left_names
send  --                              --
====  ==============================  =======================================

`push` is a conversation. While both ends look at their files, the client sends the
hashes of its manifest's parts in a D frame. If the work folder holds just that, the
answer comes at once. Otherwise an S frame names the parts that differ (unless the
client has sent no hashes: all does then), the client sends its manifest of those, the
agent what it lacks of it, and the client, if *write* is set, the contents. *what* is
"pushed" for the project's files, and "restored" for checkpoints that an earlier box
has left: what was pushed as the one is not removed by a push of the other. `scan`
sends a manifest before its answer. If *unless* is set, it takes hashes with times in a
D frame, and sends only the *parts* that differ. A link that leads to what is no output
counts as what it leads to, unless *beside* says that the client has that as it was
pushed; *nowhere* are links to no file or folder. *made* says whether any output is not
as it was pushed, *left* how many files outside of the outputs are not; those are
counted if *beyond* is "always", or "if-empty" and nothing was *made*. `send` takes rows
of what is wanted and answers with the contents. Files of our own are kept under
`files/` in the agent's directory.
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
from .apply_push import (
    alone,
    carry_out,
    check_space,
    lacking,
    look,
    own,
    plan_for,
    pushed,
    receiver_for,
)
from .changes import MOST_NAMES, Changes
from .compression import Squeezer
from .frames import Frame, Incoming, Outgoing, Pulse, refusing
from .hash_index import Index
from .links import Collector, retargeted, root_path
from .manifest import Entry
from .sender import Sender
from .stream import Offer


def push(
    channel: protocol.Channel, box: Box, request: Dict[str, Any]
) -> Dict[str, Any]:
    """Make what was pushed equal to the client's manifest, or say how it is not."""
    with refusing(), contextlib.ExitStack() as stack:
        os.makedirs(box.path("files"), exist_ok=True)
        if request["write"]:
            stack.enter_context(alone(box))
        what = "restored" if request.get("what") == "restored" else "pushed"
        index = Index(own(box, what + ".index"))
        stack.callback(index.save)
        alive = Pulse(channel, box)
        frames = stack.enter_context(contextlib.closing(Incoming(channel, box)))
        record = pushed(box, what)
        before = look(box, record.marks, index, alive)
        found = [entry for entry in before.values() if entry is not None]
        told = _hashes(frames)
        others = manifest_buckets.differing(found, told)
        if told:
            if record.digest and not others and len(found) == len(before):
                digest = record.digest
                return {"equal": True, "digest": digest, "bad": [], "deleted": 0}
            channel.send_json(b"S", {"parts": others})
        entries = [
            row_codec.unpack_entry(row) for row in row_codec.receive_rows(frames)
        ]
        if told:
            entries = manifest_buckets.merged(found, entries, others, told)
        manifest.check(entries)
        receiver = receiver_for(box, write=bool(request["write"]))
        stack.callback(receiver.close)
        plan = plan_for(box, entries, before, index, receiver, alive)
        if request["write"]:
            check_space(box, plan, receiver)
        row_codec.send_rows(channel.send, lacking(plan))
        if not request["write"]:
            return {"equal": False, "digest": "", "bad": [], "deleted": 0}
        return carry_out(box, plan, before, index, receiver, frames, what)


def scan(
    channel: protocol.Channel, box: Box, request: Dict[str, Any]
) -> Dict[str, Any]:
    """Send the manifest of everything below some folders, and what links add to it."""
    with refusing():
        os.makedirs(box.path("files"), exist_ok=True)
        index = Index(own(box, "outputs.index"))
        work = os.fsencode(box.work)
        alive = Pulse(channel, box)
        changes = Changes(box, alive)
        # Elsewhere the client has none of the files that it has pushed.
        here = changes.as_pushed if request.get("beside") else lambda path: False
        outputs = Collector(work, here).collect(request["roots"])
        found = manifest.scan(
            work,
            outputs.paths,
            index,
            hashing=bool(request["hashing"]),
            alive=alive,
            through=outputs.through,
        )
        index.save()
        # Without hashes nobody has tried to read them.
        found.unreadable.extend(
            e.path for e in found.entries if e.kind == "f" and not _readable(work, e)
        )
        entries = retargeted(found.entries, outputs.targets)
        told = _hashes(Incoming(channel, box)) if request.get("unless") else b""
        others = manifest_buckets.differing(entries, told, times=True)
        fresh = manifest_buckets.within(entries, others, told) if told else entries
        row_codec.send_rows(channel.send, map(row_codec.pack_entry, fresh))
        # A link that leads to nothing holds no result.
        nowhere = frozenset(outputs.nowhere)
        made = any(changes.is_new(e) for e in entries if e.path not in nowhere)
        when = request.get("beyond")
        beyond = when == "always" or (when == "if-empty" and not made)
        # An output that is a link has its place where that leads.
        places = {*outputs.places, *map(root_path, request["roots"])}
        left = changes.outside(places) if beyond else []
        return {
            "parts": others,
            "missing": outputs.missing,
            "special": [text(path) for path in found.special],
            "unreadable": [text(path) for path in found.unreadable],
            "unstable": [text(path) for path in found.unstable],
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
            path, size, mtime_ns, *rest = row
            offer = Offer(Entry(raw(path), "f", 0, size, mtime_ns))
            check_path(offer.entry.path)
            offers.append(offer.taken(*rest) if rest else offer)
        index = Index(own(box, "outputs.index"), adding=True)
        sender = Sender(
            os.fsencode(box.work),
            Squeezer(out.send),
            lambda count: out.alive(),
            follow=True,
        )
        for offer in offers:
            sent = sender.send(offer)
            if sent is not None:
                index.put(offer.entry.path, *sent)
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
    # For the owner it is the owner's bit that counts, and nothing else.
    shut = entry.mode & 0o444 != 0o444
    return not shut or os.access(os.path.join(work, entry.path), os.R_OK)


def _hashes(frames: Callable[[], Frame]) -> bytes:
    kind, payload = frames()
    if kind != b"D" or (payload and not manifest_buckets.makes_sense(payload)):
        raise protocol.Refused("order", "a %r frame for the hashes of parts" % kind)
    return payload
