"""
Fetch the outputs, and install them only if all of them are complete and verified.

Files are downloaded into a staging directory that survives broken connections and
crashes. They are installed when every file is there and has the hash that the box
reports.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from onebox import formatting
from onebox.agent.file_names import brief, raw, show
from onebox.agent.files import manifest
from onebox.agent.files.hash_index import Index
from onebox.agent.files.manifest import Entry
from onebox.agent.files.receiver import Receiver
from onebox.errors import OutputsHeld
from onebox.remote.channel import AgentChannel
from onebox.repositories import repositories
from onebox.store.atomic_files import open_file, private_dir
from onebox.transfer.download import Downloaded, download
from onebox.transfer.install import check_names, install
from onebox.transfer.ledger import (
    LastFetch,
    Replaced,
    forget_displaced,
    note_displaced,
)
from onebox.transfer.output_links import find_links_leading_out
from onebox.transfer.progress import Meter, Progress
from onebox.transfer.remote_manifest import (
    STAGING,
    ChangesOutside,
    request_manifest,
    without,
)

# The type of a path or of a link's target. It has a name of its own because in
# `Fetched` the field *bytes* hides the built-in type.
Name = bytes
# How many times at most the outputs are scanned and downloaded. Files that change
# during a download need another pass.
PASSES = 3
INDEX = "fetched.index"


@dataclass(frozen=True)
class Fetched:
    """
    The result of a fetch.

    Attributes:
        files: The number of files and links; *bytes* is their size.

        kept_aside: Files that the user had changed here, each with its new name.

        refused: Links that were left out because they lead out of the local folder
            into which the outputs are fetched, or because only files were requested.
            Each has its target.

        missing: Those of the requested *roots* that are not on the box.

        digest: The digest of the manifest of the outputs.

        repositories: Folders such as `.git` that were left out and that differ from
            the local ones.

        skipped: Paths that were left out: pipes, sockets and devices, and paths that
            are reserved for onebox or for the project's own repository.

        unstable: Files that were left out because they kept changing.

        entries: The outputs that are here now.

        owners_of_kept: The paths in *kept_aside* whose files are outputs of another
            box, each with the name of that box.

        dangling: Links that were left out because they lead out of the outputs, to a
            place where the box has no file or folder.

        changes_outside: New and changed files outside of the outputs; None if there
            are none, or if the box did not search for them.
    """

    files: int
    bytes: int
    kept_aside: list[tuple[Name, Name]]
    refused: dict[Name, Name]
    missing: list[str]
    digest: str
    repositories: list[Name] = field(default_factory=list)
    skipped: list[Name] = field(default_factory=list)
    unstable: list[Name] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    owners_of_kept: dict[Name, str] = field(default_factory=dict)
    dangling: list[Name] = field(default_factory=list)
    changes_outside: ChangesOutside | None = None


def fetch(
    channel: AgentChannel,
    roots: Sequence[str],
    into: Path,
    memory: Path,
    progress: Progress,
    unsafe_links: bool = False,
    unsafe_git: bool = False,
    skip_unstable: bool = False,
    into_project: bool = False,
    search_outside: str = "",
    only_files: bool = False,
    known: Iterable[Entry] = (),
    replaced: Replaced | None = None,
) -> Fetched:
    """
    Fetch everything below *roots* on the box to the same paths below *into*.

    A link to a path that is no output is replaced by the file or folder it leads to.

    Args:
        memory: The folder for the index, the ledger and partial downloads.

        unsafe_links: Also create links that lead out of *into*.

        unsafe_git: Also fetch `.git` folders and similar. Git runs programs that are
            configured in them.

        skip_unstable: Leave out files that keep changing instead of raising.

        into_project, search_outside, known: See `request_manifest`.

        only_files: Refuse a folder or a link in place of a file at one of *roots*.

        replaced: Outputs of other boxes that are replaced, not kept aside.

    Raises:
        OutputsHeld: The outputs cannot be fetched or installed completely. If this
            happens in the middle of a transfer, the channel is closed.

        ConnectionLost: A call with a new channel continues the download.
    """
    with reporting_held(), lock(into, memory):
        # The index is loaded at its first use, which is while the box scans its files.
        index = functools.cache(functools.partial(Index, os.fsencode(memory / INDEX)))
        staging = _staging(into, memory)
        last_fetch = LastFetch(memory)
        with contextlib.closing(
            Receiver(os.fsencode(staging), os.fsencode(into), keep=-1)
        ) as receiver:
            for _ in range(PASSES):
                remote = request_manifest(
                    channel,
                    roots,
                    hashing=False,
                    into_project=into_project,
                    search_outside=search_outside,
                    last_fetch=lambda: last_fetch.entries(into, index()),
                    with_repositories=unsafe_git,
                    into=os.fsencode(into),
                    known=known,
                )
                refused = {} if unsafe_links else find_links_leading_out(remote.entries)
                if only_files:
                    refused.update(_no_files_of(roots, remote.entries))
                entries = without(remote.entries, refused)
                downloaded = Downloaded()
                digest = remote.digest if entries is remote.entries else ""
                if remote.same:
                    Meter(progress).finish()
                    break
                check_names(entries, staging)
                downloaded = download(
                    channel, entries, remote.here, into, index(), receiver, progress
                )
                if not downloaded.bad:
                    break
            else:
                if not skip_unstable:
                    names = [show(path) for path in downloaded.bad]
                    raise OutputsHeld(
                        "these outputs are still being written to on the box: "
                        + formatting.first_names(names)
                    )
                entries = without(entries, downloaded.bad)
            entries = manifest.with_hashes(entries, downloaded.hashes)
            downloaded.hashes.clear()
            kept_aside, owners = [], {}
            if not remote.same:
                last_fetch.save(remote.entries)
                # For an unchanged file, *entries* has the same object that is in
                # `remote.here`. So all other entries count as new or changed.
                before = set(map(id, remote.here))
                fresh = [entry for entry in entries if id(entry) not in before]
                remote.entries.clear()
                remote.here.clear()
                kept_aside = install(
                    entries,
                    fresh,
                    into,
                    memory,
                    index(),
                    receiver,
                    downloaded,
                    replaced,
                )
                last_fetch.note_installed()
                if kept_aside:
                    owners = note_displaced(memory, into, kept_aside, index())
            forget_displaced(memory)
            receiver.clean()
        if staging.parent == into:
            staging.rmdir()
        return Fetched(
            files=sum(entry.kind != "d" for entry in entries),
            bytes=sum(entry.size for entry in entries),
            kept_aside=kept_aside,
            refused=refused,
            missing=remote.missing,
            digest=digest or manifest.digest(entries),
            repositories=_differing_repositories(into, remote.repositories),
            skipped=remote.skipped,
            unstable=downloaded.bad,
            entries=entries,
            owners_of_kept=owners,
            dangling=remote.dangling,
            changes_outside=remote.changes_outside,
        )


def _no_files_of(roots: Sequence[str], entries: Iterable[Entry]) -> dict[Name, Name]:
    """Return the paths, with targets of links, that are no file at one of *roots*."""
    files = {raw(root) for root in roots}
    return {e.path: e.target for e in entries if e.kind != "f" or e.path not in files}


def _differing_repositories(into: Path, entries: list[Entry]) -> list[Name]:
    """
    Return the folders of the repositories whose *entries* differ from the local files.

    File contents are not read; only kind, size, mtime and link target are compared.
    """
    paths = [entry.path for entry in entries]
    scanned = manifest.scan(os.fsencode(into), paths, Index(), hashing=False)
    here = {_without_content(entry) for entry in scanned.entries}
    find_repository = repositories(
        paths, lambda path: os.path.lexists(os.fsencode(into) + b"/" + path)
    )
    differing = {
        find_repository(entry.path)
        for entry in entries
        if _without_content(entry) not in here
    }
    return sorted(path for path in differing if path is not None)


def _without_content(entry: Entry) -> tuple[Name, str, int, int, Name]:
    return entry.path, entry.kind, entry.size, entry.mtime_ns, entry.target


def _staging(into: Path, memory: Path) -> Path:
    """Return a staging directory on the disk of *into*, so that files can be moved."""
    if into.stat().st_dev == memory.stat().st_dev:
        return memory / "incoming"
    return into / STAGING


@contextlib.contextmanager
def lock(into: Path, memory: Path) -> Iterator[None]:
    """
    Keep out other fetches from this box or into this folder.

    If such a fetch is under way, wait until it ends.
    """
    into.mkdir(parents=True, exist_ok=True)
    private_dir(memory)
    with os.fdopen(open_file(memory / "fetch.lock", os.O_WRONLY), "ab") as lock:
        place = os.open(into, os.O_RDONLY | os.O_DIRECTORY)
        try:
            # A network file system may not support locks.
            with contextlib.suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX)
                fcntl.flock(place, fcntl.LOCK_EX)
            yield
        finally:
            os.close(place)


@contextlib.contextmanager
def reporting_held() -> Iterator[None]:
    """
    Raise OutputsHeld in place of an OSError about a local file.

    This error makes the caller keep the box.
    """
    try:
        yield
    except OSError as error:
        reason = "the disk is full" if error.errno == errno.ENOSPC else error.strerror
        name = error.filename
        where = (
            f": {brief(os.fsencode(name))}" if isinstance(name, (str, bytes)) else ""
        )
        raise OutputsHeld(f"the outputs cannot be put here: {reason}{where}") from error
