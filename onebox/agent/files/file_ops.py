"""
The operations of push and fetch on the box.

====  ===========================  ==================================================
op    arguments                    answer
====  ===========================  ==================================================
push  write, kind, downloads       equal, digest, bad, deleted
scan  roots, hashing, compare,     buckets, missing, special, unreadable, unstable,
      into_project,                nowhere, outputs_changed, changed_outside,
      search_outside, known        changed_outside_names
send  --                           --
changes  since                     names, pushed, count
====  ===========================  ==================================================

`push` makes the files of one kind equal to the client's manifest. Client and agent scan
their files at the same time, and the client sends the hashes of its manifest's buckets
(see `manifest_exchange`) in a D frame. If the work folder has the same hashes, the
answer comes at once, with *equal* set. Otherwise an S frame names the buckets that
differ, the client sends its entries in those buckets, and the agent replies with the
changes that it needs. If the client sends an empty D frame instead of hashes, its whole
manifest follows at once. If *write* is set, the client then sends the contents. *kind*
is "pushed" for the project's files and "restored" for checkpoints from an earlier box;
a push of one kind never removes files of the other. If *downloads* is not set, the
files that an earlier `download` has left are removed. *digest* is the digest of the
manifest if the files are now equal to it, else "". *bad* lists the files that did not
arrive complete, and *deleted* counts the removed paths.

`scan` sends the manifest of the outputs at and below *roots* before its answer. If
*compare* is set, the client sends bucket hashes with times in a D frame, and the agent
sends only the entries in the buckets that differ. *buckets* lists these. A link to a
path that is no output is replaced by what it leads to, unless *into_project* is set and
the client has that path as it was pushed. *missing* and *nowhere* are explained in
`collect_outputs.Outputs`, *hashing*, *special*, *unreadable* and *unstable* in
`manifest`. *outputs_changed* is whether any output differs from what was pushed.
*changed_outside* counts the new or changed files outside of the outputs, and
*changed_outside_names* lists the first of them. The agent searches for these files only
if *search_outside* is "always", or if it is "if-empty" and no output has changed. It
leaves out the files that the client has: *known* has their marks by path.

`changes` lists the files that are new or changed since the push and since the time
*since* (seconds since the epoch): all are counted, and the first of them are named.
*pushed* has the marks with which they were pushed (see `push_record.mark`).

`send` receives a list of files and sends their contents.

The agent's own files for these operations are in the folder `files` in its directory.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import Any, Callable, Dict, Iterator

from .. import protocol
from ..box import BoxConfig
from ..downloads import removal
from ..file_names import Hostile, brief, check_path, raw, text
from . import manifest, manifest_exchange
from .apply_push import IncomingPush, push_lock, receiver_for
from .collect_outputs import OutputCollector, retargeted, root_path
from .content_stream import Compressor, FileOffer
from .hash_index import Index
from .manifest import Entry
from .push_record import MOST_NAMES, ChangesSincePush, own_file
from .sender import Sender
from .striping import Frame, Incoming, Outgoing, Pulse

# At most this many names of changed files are sent to the client at once.
MOST_CHANGES = 20_000


def push(
    channel: protocol.Channel, box: BoxConfig, request: Dict[str, Any]
) -> Dict[str, Any]:
    """
    Compare the files of one kind with the client's manifest.

    If *write* is set in the request, make the files equal to the manifest.
    """
    write = bool(request["write"])
    with refusing(), contextlib.ExitStack() as stack:
        os.makedirs(box.path("files"), exist_ok=True)
        if write:
            stack.enter_context(push_lock(box))
        kind = "restored" if request.get("kind") == "restored" else "pushed"
        if write and kind == "pushed" and not request.get("downloads"):
            removal.remove_downloads(box)
        frames = stack.enter_context(contextlib.closing(Incoming(channel, box)))
        push = IncomingPush(box, kind, Pulse(channel, box))
        stack.callback(push.save_index)
        present = push.present
        hashes = _receive_hashes(frames)
        differing = manifest_exchange.differing_buckets(present, hashes)
        if hashes:
            digest = push.record.digest
            if digest and not differing and len(present) == len(push.before):
                return {"equal": True, "digest": digest, "bad": [], "deleted": 0}
            channel.send_json(b"S", {"buckets": differing})
        entries = [
            manifest_exchange.unpack_entry(row)
            for row in manifest_exchange.receive_rows(frames)
        ]
        if hashes:
            entries = manifest_exchange.merged(present, entries, differing, hashes)
        manifest.check(entries)
        receiver = receiver_for(box, write=write)
        stack.callback(receiver.close)
        plan = push.plan(entries, receiver)
        if write:
            push.check_space(plan, receiver)
        manifest_exchange.send_rows(channel.send, plan.rows())
        if not write:
            return {"equal": False, "digest": "", "bad": [], "deleted": 0}
        return push.apply(plan, receiver, frames)


def scan(
    channel: protocol.Channel, box: BoxConfig, request: Dict[str, Any]
) -> Dict[str, Any]:
    """Send the manifest of the outputs; return the other results of the scan."""
    with refusing():
        os.makedirs(box.path("files"), exist_ok=True)
        index = Index(own_file(box, "outputs.index"))
        work = os.fsencode(box.work)
        alive = Pulse(channel, box)
        changes = ChangesSincePush(box, alive)
        # If the client fetches into another folder than its project, that folder does
        # not have the pushed files.
        on_client = (
            changes.as_pushed if request.get("into_project") else lambda path: False
        )
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
        # Without *hashing* the scan opens no file, so it finds no unreadable files.
        # This check finds them.
        scanned.unreadable.extend(
            e.path for e in scanned.entries if e.kind == "f" and not _readable(work, e)
        )
        entries = retargeted(scanned.entries, outputs.targets)
        hashes = b""
        if request.get("compare"):
            hashes = _receive_hashes(Incoming(channel, box))
        differing = manifest_exchange.differing_buckets(entries, hashes, times=True)
        fresh = entries
        if hashes:
            fresh = manifest_exchange.entries_in(entries, differing, hashes)
        manifest_exchange.send_rows(
            channel.send, map(manifest_exchange.pack_entry, fresh)
        )
        # A link that leads to no file or folder does not count as a changed output.
        nowhere = frozenset(outputs.nowhere)
        changed = any(changes.is_new(e) for e in entries if e.path not in nowhere)
        when = request.get("search_outside")
        outside = []
        if when == "always" or (when == "if-empty" and not changed):
            # If a requested path is a link, `outputs.places` has only the link's
            # target. So the requested paths are added.
            places = {*outputs.places, *map(root_path, request["roots"])}
            outside = changes.changed_outside(places, _known(request))
        return {
            "buckets": differing,
            "missing": outputs.missing,
            "special": [text(path) for path in scanned.special],
            "unreadable": [text(path) for path in scanned.unreadable],
            "unstable": [text(path) for path in scanned.unstable],
            "nowhere": [text(path) for path in outputs.nowhere],
            "outputs_changed": changed,
            "changed_outside": len(outside),
            "changed_outside_names": [text(path) for path in outside[:MOST_NAMES]],
        }


def _known(request: Dict[str, Any]) -> Dict[bytes, bytes]:
    """Return the marks of the files that the client has fetched before, by path."""
    known = request.get("known") or {}
    return {raw(path): raw(mark) for path, mark in known.items()}


def send(
    channel: protocol.Channel, box: BoxConfig, request: Dict[str, Any]
) -> Dict[str, Any]:
    """Send the contents of the files that the client names."""
    with refusing(), contextlib.closing(Outgoing(channel, box)) as out:
        offers = []
        for row in manifest_exchange.receive_rows(Incoming(channel, box)):
            path, size, mtime_ns, *offered = row
            entry = Entry(raw(path), "f", 0, size, mtime_ns)
            check_path(entry.path)
            offers.append(
                FileOffer.from_json(entry, *offered) if offered else FileOffer(entry)
            )
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


def changes(
    channel: protocol.Channel, box: BoxConfig, request: Dict[str, Any]
) -> Dict[str, Any]:
    """Return the names of the files that have changed since the push and a time."""
    with refusing():
        since = int(float(request["since"]) * 1e9)
        found = ChangesSincePush(box, Pulse(channel, box)).changed_after(since)
    named = sorted(found)[:MOST_CHANGES]
    return {
        "names": [text(path) for path in named],
        "pushed": {
            text(path): [mark.decode("utf-8", "replace") for mark in found[path]]
            for path in named
            if found[path]
        },
        "count": len(found),
    }


OPS = {"push": push, "scan": scan, "send": send, "changes": changes}


@contextlib.contextmanager
def refusing() -> Iterator[None]:
    """Turn an error in an operation into a `Refused` that states the reason."""
    try:
        yield
    except Hostile as error:
        raise protocol.Refused("hostile", str(error)) from error
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        name = error.filename
        where = brief(os.fsencode(name)) if isinstance(name, (str, bytes)) else ""
        raise protocol.Refused(
            "disk" if full else "files",
            "%s %s" % (error.strerror, where) if where else str(error.strerror),
        ) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise protocol.Refused("request", "invalid request: %r" % error) from error


def _readable(work: bytes, entry: Entry) -> bool:
    # Most files are readable for everyone. For those no system call is needed.
    readable_for_all = entry.mode & 0o444 == 0o444
    return readable_for_all or os.access(os.path.join(work, entry.path), os.R_OK)


def _receive_hashes(frames: Callable[[], Frame]) -> bytes:
    kind, payload = frames()
    if kind != b"D" or (payload and not manifest_exchange.are_bucket_hashes(payload)):
        raise protocol.Refused("order", "expected bucket hashes, got frame %r" % kind)
    return payload
