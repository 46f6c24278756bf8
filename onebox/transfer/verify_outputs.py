"""Compare the outputs on the box, or those of the last fetch, with the local files."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from onebox import formatting
from onebox.agent.file_names import show
from onebox.agent.files import manifest
from onebox.agent.files.hash_index import Index
from onebox.agent.files.manifest import Entry
from onebox.remote.channel import AgentChannel
from onebox.store.atomic_files import private_dir
from onebox.transfer.fetch_outputs import INDEX, lock
from onebox.transfer.ledger import LastFetch, Ledger, displaced_entries
from onebox.transfer.remote_manifest import (
    ChangesOutside,
    RemoteManifest,
    request_manifest,
)


@dataclass(frozen=True)
class Verified:
    """
    The result of comparing the outputs on the box with the local files.

    *missing* is a phrase that names the outputs without an equal local copy; None if
    every output has one. *changes_outside* are the new and changed files outside of the
    outputs; the box searches for them only if no output is new or changed.
    """

    missing: str | None
    changes_outside: ChangesOutside | None


def verify(
    channel: AgentChannel,
    roots: Sequence[str],
    into: Path,
    memory: Path,
    *,
    into_project: bool = False,
    known: Iterable[Entry] = (),
) -> Verified:
    """
    Compare the outputs on the box with the files below *into*.

    For *into_project* and *known*, see `request_manifest`.
    """
    private_dir(memory)
    remote = request_manifest(
        channel,
        roots,
        hashing=True,
        into_project=into_project,
        search_outside="if-empty",
        known=known,
        # Repositories are included, because a fetch leaves some of them out, and these
        # must count as missing.
        with_repositories=True,
    )
    # The lock is needed because a fetch from another box may be moving our outputs out
    # of its way right now.
    with lock(into, memory) if into.is_dir() else contextlib.nullcontext():
        missing = _missing(remote, roots, into, memory)
    return Verified(missing, remote.changes_outside)


def _missing(
    remote: RemoteManifest, roots: Iterable[str], into: Path, memory: Path
) -> str | None:
    if remote.unstable:
        unstable = formatting.first_names([show(path) for path in remote.unstable])
        return f"being written to: {unstable}"
    index = Index(os.fsencode(memory / INDEX))
    scanned = manifest.scan(
        os.fsencode(into), [e.path for e in remote.entries], index, hashing=True
    )
    local = {entry.path: entry for entry in scanned.entries}
    # The push creates the folders of *roots* on the box, so an empty one is no output.
    ours = {os.fsencode(root.rstrip("/")) for root in roots}
    missing = [
        e
        for e in remote.entries
        if not _is_here(e, local) and not (e.kind == "d" and e.path in ours)
    ]
    if missing:
        elsewhere = displaced_entries(memory, into, index)
        missing = [e for e in missing if not _is_here(e, elsewhere)]
    index.save()
    if not missing:
        return None
    files = [e for e in missing if e.kind != "d"]
    # The phrase names missing folders only if no file is missing.
    if files:
        of = sum(e.kind != "d" for e in remote.entries)
        counted = f"{len(files):,} of {formatting.count(of, 'file')}"
    else:
        counted = formatting.count(len(missing), "folder")
    total_bytes = sum(e.size for e in missing)
    if total_bytes:
        counted += f", {formatting.byte_count(total_bytes)}"
    shown = formatting.first_names([_with_size(e) for e in files or missing], 10)
    return f"{counted}: {shown}"


def changed_here(into: Path, memory: Path) -> str | None:
    """
    Return a phrase that names the fetched files that were changed or removed here.

    Return None if there are none. Only the files of the last fetch are checked.
    """
    ledger = Ledger(memory)
    index = Index(os.fsencode(memory / INDEX))
    # If the last fetch is unknown, check every file ever fetched.
    last = LastFetch(memory).paths()
    paths = [path for path in ledger.paths() if not last or path in last]
    scanned = manifest.scan(os.fsencode(into), paths, index, hashing=True)
    local = {entry.path: entry for entry in scanned.entries}
    changed = [
        path for path in paths if path not in local or not ledger.is_ours(local[path])
    ]
    if changed:
        elsewhere = displaced_entries(memory, into, index)
        changed = [
            path
            for path in changed
            if path not in elsewhere or not ledger.is_ours(elsewhere[path])
        ]
    index.save()
    return formatting.first_names([show(path) for path in changed]) or None


def _with_size(entry: Entry) -> str:
    size = f" ({formatting.byte_count(entry.size)})" if entry.kind == "f" else ""
    return show(entry.path) + size


def _is_here(entry: Entry, local: dict[bytes, Entry]) -> bool:
    mine = local.get(entry.path)
    return mine is not None and manifest.same_content(entry, mine)
