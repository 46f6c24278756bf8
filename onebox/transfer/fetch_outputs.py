"""
Bring the outputs here: all of them, verified, or none under its final name.

Contents are received into a staging directory that outlives connections and
processes. Only when every byte of every file is here and hashes to what the box
says are the files moved to their places.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from onebox import formatting
from onebox.agent.file_names import brief, show
from onebox.agent.files import manifest
from onebox.agent.files.hash_index import Index
from onebox.agent.files.manifest import Entry
from onebox.agent.files.receiver import Receiver
from onebox.errors import OutputsHeld
from onebox.remote.channel import AgentChannel
from onebox.repositories import repositories
from onebox.store.atomic_files import private_dir
from onebox.transfer import displaced_outputs
from onebox.transfer.download import Brought, bring
from onebox.transfer.fsync import settle
from onebox.transfer.install import Placing, collisions, folds_case, leads_out
from onebox.transfer.ledger import Last, Remembered
from onebox.transfer.progress import Meter, Progress, listing
from onebox.transfer.remote_manifest import STAGING, Found, Left, ask, without

Name = bytes
PASSES = 3
INDEX = "fetched.index"


@dataclass(frozen=True)
class Fetched:
    """
    What a fetch came to.

    *kept* are files that had been changed here, with the names they have now, and
    *theirs* the box of which some of these are outputs, by their path; *refused* are
    links that lead out, with their targets, *dangling* such links that lead to nothing
    on the box either, *missing* roots that are not on the box, *repositories* folders
    such as `.git` that were left out and are not here as they are there, *skipped*
    things that are no files, *unstable* files that were left out because they did not
    hold still. *entries* are what is here now, *left* is what the job has left outside
    of the outputs.
    """

    files: int
    bytes: int
    kept: list[tuple[Name, Name]]
    refused: dict[Name, Name]
    missing: list[str]
    digest: str
    repositories: list[Name] = field(default_factory=list)
    skipped: list[Name] = field(default_factory=list)
    unstable: list[Name] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    theirs: dict[Name, str] = field(default_factory=dict)
    dangling: list[Name] = field(default_factory=list)
    left: Left | None = None


def fetch(
    channel: AgentChannel,
    roots: Sequence[str],
    into: Path,
    memory: Path,
    progress: Progress,
    unsafe_links: bool = False,
    unsafe_git: bool = False,
    while_written: bool = False,
    beside: bool = False,
    beyond: str = "",
) -> Fetched:
    """
    Bring everything below *roots* on the box to the same paths below *into*.

    A link to what is no output comes as what it leads to.

    Args:
        memory: Where to remember what was fetched, and to keep what has come
            until all is here.

        unsafe_links: Make links that lead out of *into*, too.

        unsafe_git: Bring `.git` folders and their like, too: git runs programs
            that they configure.

        while_written: Leave out what is being written to, instead of giving up.

        beside: See `ask`, as for *beyond*.

    Raises:
        OutputsHeld: Not all could be brought, or nothing may be placed here. If
            it came in the middle of the transfer, the link is closed.

        ConnectionLost: Call again over a new link: it goes on from there.
    """
    with holding(), _alone(into, memory):
        # Loaded once the box is at work.
        index = functools.cache(functools.partial(Index, os.fsencode(memory / INDEX)))
        staging = _staging(into, memory)
        with contextlib.closing(
            Receiver(os.fsencode(staging), os.fsencode(into), keep=-1)
        ) as receiver:
            last = Last(memory)
            for _ in range(PASSES):
                found = ask(
                    channel,
                    roots,
                    hashing=False,
                    beside=beside,
                    beyond=beyond,
                    mine=lambda: last.look(into, index()),
                    repositories=unsafe_git,
                    into=os.fsencode(into),
                )
                known = index()
                refused = {} if unsafe_links else leads_out(found.entries)
                entries = without(found.entries, refused)
                came = Brought()
                digest = found.digest if entries is found.entries else ""
                if found.same:
                    Meter(progress).finish()
                    break
                _fits_here(entries, staging)
                came = bring(
                    channel, entries, found.here, into, known, receiver, progress
                )
                if not came.bad:
                    break
            else:
                if not while_written:
                    raise OutputsHeld(
                        "these outputs are still being written to on the box: "
                        + listing([show(path) for path in came.bad])
                    )
                entries = without(entries, came.bad)
            entries = manifest.with_hashes(entries, came.hashes)
            came.hashes.clear()
            kept, theirs = [], {}
            if not found.same:
                last.save(found.entries)
                # What was found here is what a fetch has put here.
                before = set(map(id, found.here))
                fresh = [entry for entry in entries if id(entry) not in before]
                found.entries.clear()
                found.here.clear()
                kept = _place(entries, fresh, into, memory, known, receiver, came)
                theirs = (
                    displaced_outputs.note(memory, into, kept, known) if kept else {}
                )
            displaced_outputs.forget(memory)
            receiver.clean()
        if staging.parent == into:
            staging.rmdir()
        return Fetched(
            files=sum(entry.kind != "d" for entry in entries),
            bytes=sum(entry.size for entry in entries),
            kept=kept,
            refused=refused,
            missing=found.missing,
            digest=digest or manifest.digest(entries),
            repositories=_held_repositories(into, found.repositories),
            skipped=found.skipped,
            unstable=came.bad,
            entries=entries,
            theirs=theirs,
            dangling=found.dangling,
            left=found.left,
        )


@dataclass(frozen=True)
class Verified:
    """
    How the outputs on the box compare with what is here.

    *missing* says which of them are not here byte for byte, None if all are. *left*
    is what the job has left elsewhere, if the outputs hold nothing new.
    """

    missing: str | None
    left: Left | None


def verify(
    channel: AgentChannel,
    roots: Sequence[str],
    into: Path,
    memory: Path,
    *,
    beside: bool = False,
) -> Verified:
    """Compare the outputs on the box with what a fetch into *into* has left here."""
    private_dir(memory)
    found = ask(
        channel,
        roots,
        hashing=True,
        beside=beside,
        beyond="if-empty",
        # What a fetch leaves out by default is not here either.
        repositories=True,
    )
    return Verified(_missing(found, into, memory), found.left)


def _missing(found: Found, into: Path, memory: Path) -> str | None:
    if found.unstable:
        return f"being written to: {listing([show(p) for p in found.unstable])}"
    known = Index(os.fsencode(memory / INDEX))
    here = manifest.scan(
        os.fsencode(into), [e.path for e in found.entries], known, hashing=True
    )
    local = {entry.path: entry for entry in here.entries}
    missing = [e for e in found.entries if not _here(e, local)]
    if missing:
        elsewhere = displaced_outputs.entries(memory, into, known)
        missing = [e for e in missing if not _here(e, elsewhere)]
    known.save()
    if not missing:
        return None
    total = sum(e.size for e in missing)
    files = [e for e in missing if e.kind != "d"]
    # Folders are worth a word only where nothing else is missing.
    if files:
        of = sum(e.kind != "d" for e in found.entries)
        counted = f"{len(files):,} of {formatting.count(of, 'file')}"
    else:
        counted = formatting.count(len(missing), "folder")
    if total:
        counted += f", {formatting.byte_count(total)}"
    return f"{counted}: {listing([_with_size(e) for e in files or missing], 10)}"


def changed_here(into: Path, memory: Path) -> str | None:
    """Say which files of the last fetch are no longer here as they were, or None."""
    remembered = Remembered(memory)
    known = Index(os.fsencode(memory / INDEX))
    # Where it is not known what came last, all that ever came counts.
    last = Last(memory).paths()
    paths = [path for path in remembered.paths() if not last or path in last]
    here = manifest.scan(os.fsencode(into), paths, known, hashing=True)
    local = {entry.path: entry for entry in here.entries}
    lacking = [
        path
        for path in paths
        if path not in local or not remembered.is_ours(local[path])
    ]
    if lacking:
        elsewhere = displaced_outputs.entries(memory, into, known)
        lacking = [
            path
            for path in lacking
            if path not in elsewhere or not remembered.is_ours(elsewhere[path])
        ]
    known.save()
    return listing([show(path) for path in lacking]) or None


def _with_size(entry: Entry) -> str:
    size = f" ({formatting.byte_count(entry.size)})" if entry.kind == "f" else ""
    return show(entry.path) + size


def _here(entry: Entry, local: dict[bytes, Entry]) -> bool:
    mine = local.get(entry.path)
    return mine is not None and manifest.same_content(entry, mine)


def _place(
    entries: list[Entry],
    fresh: list[Entry],
    into: Path,
    memory: Path,
    known: Index,
    receiver: Receiver,
    came: Brought,
) -> list[tuple[bytes, bytes]]:
    settle(receiver.fd, sorted(came.staged.values()))
    remembered = Remembered(memory)
    # Should the next moments end with a crash, what is in place is ours all the same.
    remembered.add(fresh)
    remembered.save()
    with contextlib.closing(
        Placing(into, known, remembered, receiver.fd, came.staged)
    ) as placing:
        placing.place(entries, came.blocks)
    remembered.settle(entries)
    remembered.save()
    known.save()
    return placing.kept


def _held_repositories(into: Path, entries: list[Entry]) -> list[Name]:
    """Return the repositories of which something is not here, judged by times."""
    paths = [entry.path for entry in entries]
    here = manifest.scan(os.fsencode(into), paths, Index(), hashing=False)
    known = {_shape(entry) for entry in here.entries}
    holder = repositories(
        paths, lambda path: os.path.lexists(os.fsencode(into) + b"/" + path)
    )
    held = {holder(e.path) for e in entries if _shape(e) not in known}
    return sorted(path for path in held if path is not None)


def _shape(entry: Entry) -> tuple[Name, str, int, int, Name]:
    return entry.path, entry.kind, entry.size, entry.mtime_ns, entry.target


def _fits_here(entries: list[Entry], staging: Path) -> None:
    if not folds_case(staging):
        return
    clashes = collisions([entry.path for entry in entries])
    if clashes:
        raise OutputsHeld(
            "names that are one and the same on this disk: "
            + listing([" and ".join(map(show, names)) for names in clashes], 10)
        )


def _staging(into: Path, memory: Path) -> Path:
    if into.stat().st_dev == memory.stat().st_dev:
        return memory / "incoming"
    return into / STAGING


@contextlib.contextmanager
def _alone(into: Path, memory: Path) -> Iterator[None]:
    """Wait for other fetches: of this box, and of others into the same folder."""
    into.mkdir(parents=True, exist_ok=True)
    private_dir(memory)
    with (memory / "fetch.lock").open("ab") as lock:
        place = os.open(into, os.O_RDONLY | os.O_DIRECTORY)
        try:
            # A disk of another machine may know no locks.
            with contextlib.suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX)
                fcntl.flock(place, fcntl.LOCK_EX)
            yield
        finally:
            os.close(place)


@contextlib.contextmanager
def holding() -> Iterator[None]:
    """Turn what can go wrong with local files into a reason to keep the box."""
    try:
        yield
    except OSError as error:
        what = "the disk is full" if error.errno == errno.ENOSPC else error.strerror
        name = error.filename
        where = (
            f": {brief(os.fsencode(name))}" if isinstance(name, (str, bytes)) else ""
        )
        raise OutputsHeld(f"the outputs cannot be put here: {what}{where}") from error
