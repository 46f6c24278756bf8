"""
Bring the outputs here: all of them, verified, or none under its final name.

Contents are received into a staging directory that outlives connections and
processes. Only when every byte of every file is here and hashes to what the box
says are the files moved to their places.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import words
from ..agent import manifest, parts, tables, wire
from ..agent.index import Index
from ..agent.lanes import Lanes
from ..agent.manifest import Entry
from ..agent.names import Hostile, raw, show, text
from ..agent.receiver import Landed, Receiver
from ..agent.stream import Offer
from ..errors import OutputsHeld
from .link import AgentError, Link
from .meter import Meter, Progress, listing
from .placing import Placing, collisions, folds_case, leads_out
from .remembered import Last, Remembered
from .settling import settle
from .widening import Frame, Widening

Name = bytes
PASSES = 3
STAGING = ".onebox-incoming"
INDEX = "fetched.index"
# What no output may touch, whatever the box says.
NOT_OUTPUTS = (b".git", b".onebox", STAGING.encode())


@dataclass(frozen=True)
class Fetched:
    """
    What a fetch came to.

    *kept* are files that had been changed here, with the names they have now;
    *refused* are links that lead out of the project, *missing* roots that are
    not on the box, *skipped* things that are no files, *unstable* files that were
    left out because they did not hold still. *entries* are what is here now.
    """

    files: int
    bytes: int
    kept: list[tuple[Name, Name]]
    refused: list[Name]
    missing: list[str]
    digest: str
    skipped: list[Name] = field(default_factory=list)
    unstable: list[Name] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)


def fetch(
    link: Link,
    roots: Sequence[str],
    into: Path,
    memory: Path,
    progress: Progress,
    unsafe_links: bool = False,
    while_written: bool = False,
) -> Fetched:
    """
    Bring everything below *roots* on the box to the same paths below *into*.

    Args:
        memory: Where to remember what was fetched, and to keep what has come
            until all is here.

        unsafe_links: Make links that lead out of *into*, too.

        while_written: Leave out what is being written to, instead of giving up.

    Raises:
        OutputsHeld: Not all could be brought, or nothing may be placed here. If
            it came in the middle of the transfer, the link is closed.

        ConnectionLost: Call again over a new link: it goes on from there.
    """
    with _holding():
        memory.mkdir(parents=True, exist_ok=True)
        into.mkdir(parents=True, exist_ok=True)
        known = Index(os.fsencode(memory / INDEX))
        staging = _staging(into, memory)
        with contextlib.closing(
            Receiver(os.fsencode(staging), os.fsencode(into), keep=-1)
        ) as receiver:
            last = Last(memory)
            for _ in range(PASSES):
                found = _ask(
                    link, roots, hashing=False, mine=lambda: last.look(into, known)
                )
                refused = [] if unsafe_links else leads_out(found.entries)
                entries = _without(found.entries, refused)
                came = _Brought()
                if found.same:
                    Meter(progress).finish()
                    break
                _fits_here(entries, staging)
                came = _bring(
                    link, entries, found.here, into, known, receiver, progress
                )
                if not came.bad:
                    break
            else:
                if not while_written:
                    raise OutputsHeld(
                        "these outputs are still being written to on the box: "
                        + listing([show(path) for path in came.bad])
                    )
                entries = _without(entries, came.bad)
            entries = manifest.with_hashes(entries, came.hashes)
            came.hashes.clear()
            kept = []
            if not found.same:
                last.save(found.entries)
                found.entries.clear()
                found.here.clear()
                kept = _place(entries, into, memory, known, receiver, came)
            receiver.clean()
        if staging.parent == into:
            staging.rmdir()
        return Fetched(
            files=sum(entry.kind != "d" for entry in entries),
            bytes=sum(entry.size for entry in entries),
            kept=kept,
            refused=refused,
            missing=found.missing,
            digest=manifest.digest(entries),
            skipped=found.skipped,
            unstable=came.bad,
            entries=entries,
        )


def verify(link: Link, roots: Sequence[str], into: Path, memory: Path) -> str | None:
    """Say which outputs on the box are not here byte for byte, or None."""
    memory.mkdir(parents=True, exist_ok=True)
    found = _ask(link, roots, hashing=True)
    if found.unstable:
        return f"being written to: {listing([show(p) for p in found.unstable])}"
    known = Index(os.fsencode(memory / INDEX))
    here = manifest.scan(
        os.fsencode(into), [e.path for e in found.entries], known, hashing=True
    )
    known.save()
    local = {entry.path: entry for entry in here.entries}
    missing = [e for e in found.entries if not _here(e, local)]
    if not missing:
        return None
    # Folders are worth a word only where nothing else is missing.
    told = [e for e in missing if e.kind != "d"] or missing
    total = sum(e.size for e in missing)
    counted = f"{len(missing):,} of {len(found.entries):,} files"
    if total:
        counted += f", {words.size(total)}"
    return f"{counted}: {listing([_with_size(e) for e in told], 10)}"


def changed_here(into: Path, memory: Path) -> str | None:
    """Say which fetched files are no longer here as they were, or None."""
    remembered = Remembered(memory)
    known = Index(os.fsencode(memory / INDEX))
    here = manifest.scan(os.fsencode(into), remembered.paths(), known, hashing=True)
    known.save()
    local = {entry.path: entry for entry in here.entries}
    names = [
        show(path)
        for path in remembered.paths()
        if path not in local or not remembered.is_ours(local[path])
    ]
    return listing(names) or None


def _with_size(entry: Entry) -> str:
    size = f" ({words.size(entry.size)})" if entry.kind == "f" else ""
    return show(entry.path) + size


def _here(entry: Entry, local: dict[bytes, Entry]) -> bool:
    mine = local.get(entry.path)
    return mine is not None and manifest.same_content(entry, mine)


@dataclass(frozen=True)
class _Found:
    entries: list[Entry]
    missing: list[str]
    skipped: list[bytes]
    unstable: list[bytes]
    here: list[Entry]
    same: bool


def _ask(
    link: Link,
    roots: Sequence[str],
    *,
    hashing: bool,
    mine: Callable[[], list[Entry]] | None = None,
) -> _Found:
    """
    Return the box's manifest, once it is known to harm nobody.

    Args:
        mine: Finds out what it is if nothing has changed since the last time,
            while the box looks, and spares it from sending that again.
    """
    link.begin("scan", roots=list(roots), hashing=hashing, unless=mine is not None)
    here: list[Entry] = []
    hashes = b""
    if mine is not None:
        here = mine()
        hashes = parts.hashes(here, times=True) if here else b""
        link.send(b"D", hashes)
    frames = link.frames()
    try:
        rows = tables.receive_rows(lambda: next(frames))
        entries = [tables.unpack_entry(row) for row in rows]
        told = wire.loads(next(frames)[1])
        same = bool(hashes) and not told["parts"]
        if same:
            entries = here
        else:
            if hashes:
                entries = parts.merged(here, entries, told["parts"], hashes)
            manifest.check(entries, [_top(root) for root in roots])
        unreadable = _names(told, "unreadable")
        special = _names(told, "special")
        unstable = _names(told, "unstable")
        missing = [str(root) for root in told["missing"]]
    except (Hostile, KeyError, TypeError, AttributeError) as error:
        raise OutputsHeld(f"the box sent what cannot be taken: {error}") from error
    except AgentError as error:
        raise OutputsHeld(f"the box cannot send its outputs: {error}") from error
    if unreadable:
        raise OutputsHeld(
            "not readable on the box: " + listing([show(path) for path in unreadable])
        )
    apart = [e.path for e in entries if e.path.split(b"/", 1)[0] in NOT_OUTPUTS]
    entries = _without(entries, apart)
    # A set-user-id bit is worth nothing here, coming from a machine that runs jobs.
    entries = [
        e._replace(mode=e.mode & 0o777) if e.mode & 0o7000 else e for e in entries
    ]
    return _Found(entries, missing, special + apart, unstable, here, same)


@dataclass(frozen=True)
class _Brought:
    """
    What has come: its hashes, and its names in the staging directory, by path.

    *blocks* are the hashes of big files' blocks; *bad* did not come as announced.
    """

    hashes: dict[bytes, bytes] = field(default_factory=dict)
    staged: dict[bytes, bytes] = field(default_factory=dict)
    blocks: dict[bytes, bytes] = field(default_factory=dict)
    bad: list[bytes] = field(default_factory=list)


def _bring(
    link: Link,
    entries: list[Entry],
    seen: list[Entry],
    into: Path,
    known: Index,
    receiver: Receiver,
    progress: Progress,
) -> _Brought:
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
            f"need {words.size(need + need // 20)}, have {words.size(free)} "
            f"on the disk of {into}"
        )
    brought = _Brought()
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
        _transfer(link, offers, receiver, land, meter)
    brought.bad.extend(receiver.bad)
    if not brought.bad:
        meter.finish()
    return brought


def _transfer(
    link: Link,
    offers: dict[bytes, Offer],
    receiver: Receiver,
    land: Any,
    meter: Meter,
) -> None:
    link.begin("send")
    tables.send_rows(
        link.send,
        (
            [text(path), offer.entry.size, offer.entry.mtime_ns, *offer.told()]
            for path, offer in offers.items()
        ),
    )
    frames = link.frames()
    wide = Widening(link)
    try:
        receiver.receive(
            _by_turns(link, frames, wide, meter), offers, land, meter.moved
        )
        next(frames)
    except Hostile as error:
        link.close()
        raise OutputsHeld(f"the box sent what cannot be taken: {error}") from error
    except AgentError as error:
        raise OutputsHeld(f"the box cannot send its outputs: {error}") from error
    except OSError:
        # The rest of the stream is of no use: nobody will read it.
        link.close()
        raise
    finally:
        wide.close()


def _by_turns(
    link: Link, first: Iterator[Frame], wide: Widening, meter: Meter
) -> Callable[[], Frame]:
    """Return what waits for the next frame, from the lane whose turn it is."""
    lanes = Lanes(first)
    coming: dict[bytes, Iterator[Frame]] = {}

    def frames() -> Frame:
        while True:
            kind, payload = next(lanes.next())
            if kind != b"L":
                break
            if payload not in coming:
                raise Hostile("a lane that nobody has opened")
            lanes.add(coming.pop(payload))
        fresh = wide.lane(len(payload), meter.left)
        if fresh is not None:
            coming[fresh.name] = fresh.frames
            link.send(b"L", fresh.name)
        return kind, payload

    return frames


def _place(
    entries: list[Entry],
    into: Path,
    memory: Path,
    known: Index,
    receiver: Receiver,
    came: _Brought,
) -> list[tuple[bytes, bytes]]:
    settle(receiver.fd, sorted(came.staged.values()))
    remembered = Remembered(memory)
    # Should the next moments end with a crash, what is in place is ours all the same.
    remembered.add(entries)
    remembered.save()
    with contextlib.closing(
        Placing(into, known, remembered, receiver.fd, came.staged)
    ) as placing:
        placing.place(entries, came.blocks)
    remembered.settle(entries)
    remembered.save()
    known.save()
    return placing.kept


def _fits_here(entries: list[Entry], staging: Path) -> None:
    if not folds_case(staging):
        return
    clashes = collisions([entry.path for entry in entries])
    if clashes:
        raise OutputsHeld(
            "names that are one and the same on this disk: "
            + listing([" and ".join(map(show, names)) for names in clashes], 10)
        )


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


def _staging(into: Path, memory: Path) -> Path:
    if into.stat().st_dev == memory.stat().st_dev:
        return memory / "incoming"
    return into / STAGING


def _top(root: str) -> bytes:
    top = raw(root).rstrip(b"/")
    return b"" if top == b"." else top


def _without(entries: list[Entry], paths: Iterable[bytes]) -> list[Entry]:
    apart = frozenset(paths)
    return [e for e in entries if e.path not in apart] if apart else entries


def _names(told: dict[str, Any], key: str) -> list[bytes]:
    return [raw(name) for name in told[key]]


@contextlib.contextmanager
def _holding() -> Iterator[None]:
    """Turn what can go wrong with local files into a reason to keep the box."""
    try:
        yield
    except OSError as error:
        what = "the disk is full" if error.errno == errno.ENOSPC else error.strerror
        name = error.filename
        where = f": {show(os.fsencode(name))}" if isinstance(name, (str, bytes)) else ""
        raise OutputsHeld(f"the outputs cannot be put here: {what}{where}") from error
