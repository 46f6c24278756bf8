"""Request the manifest of the outputs from the box, and check every entry."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from onebox import formatting
from onebox.agent import protocol
from onebox.agent.file_names import Hostile, show, text
from onebox.agent.files import manifest, manifest_exchange, push_record
from onebox.agent.files.collect_outputs import root_path
from onebox.agent.files.manifest import Entry
from onebox.errors import OutputsHeld
from onebox.remote.answers import ScanResult
from onebox.remote.channel import AgentChannel, AgentError
from onebox.repositories import repositories, repository_of
from onebox.transfer.output_links import find_links_leading_out

# The name of a staging folder that lies in the folder into which the outputs are
# fetched. It is used if the memory folder is on another disk (see
# `fetch_outputs._staging`).
STAGING = ".onebox-incoming"
# Outputs are never written to top-level files or folders with these names.
NOT_OUTPUTS = (b".onebox", STAGING.encode())


@dataclass(frozen=True)
class ChangesOutside:
    """
    The files outside of the outputs that are new or changed since the push.

    *count* is the number of these files, *names* are the first few of them.
    *without_outputs* means that no output is new or changed.
    """

    count: int
    names: list[bytes]
    without_outputs: bool


@dataclass(frozen=True)
class RemoteManifest:
    """
    The checked answer of the box to a request for its outputs.

    Attributes:
        entries: All outputs, except those in *skipped*, *repositories* and *dangling*.

        missing: Roots that do not exist on the box.

        skipped: Paths that were left out: pipes, sockets and devices, and paths that
            are reserved for onebox or for the project's own repository.

        unstable: Files that were written to while the box hashed them.

        here: What is now on this machine at the paths of the last fetch; empty if
            `request_manifest` was called without *last_fetch*.

        same: Whether the outputs on the box equal *here*.

        digest: The digest of *entries*, "" if it is not known.

        repositories: Entries that were left out because they are in a `.git` folder or
            similar.

        dangling: Links that were left out because they lead out of the outputs, to a
            place where the box has no file or folder.

        changes_outside: The changed files outside of the outputs; None if there are
            none, or if the box did not search for them.
    """

    entries: list[Entry]
    missing: list[str]
    skipped: list[bytes]
    unstable: list[bytes]
    here: list[Entry]
    same: bool
    digest: str
    repositories: list[Entry] = field(default_factory=list)
    dangling: list[bytes] = field(default_factory=list)
    changes_outside: ChangesOutside | None = None


def request_manifest(
    channel: AgentChannel,
    roots: Sequence[str],
    *,
    hashing: bool,
    into_project: bool = False,
    search_outside: str = "",
    last_fetch: Callable[[], list[Entry]] | None = None,
    with_repositories: bool = False,
    into: bytes = b"",
    known: Iterable[Entry] = (),
) -> RemoteManifest:
    """
    Return the manifest of the outputs, checked and filtered.

    Args:
        hashing: Include the hashes of all files.

        into_project: Whether the outputs are fetched into the project. The project has
            the pushed files already, so a link to an unchanged pushed file stays a
            link. Any other link out of the outputs is replaced by what it leads to.

        search_outside: When the box searches for new and changed files outside of the
            outputs: "always", "if-empty" (if no output is new or changed), or "" for
            never.

        last_fetch: Returns the local entries at the paths of the last fetch. It is
            called while the box scans its files. The box then sends only the entries
            that differ.

        with_repositories: Include `.git` folders and similar.

        into: The folder that the outputs are fetched into.

        known: Files outside of the outputs that are here, with their hashes. The search
            outside leaves them out if they have the same contents on the box.

    Raises:
        OutputsHeld: The box cannot read its outputs, or its answer is invalid.
    """
    channel.begin(
        "scan",
        roots=list(roots),
        hashing=hashing,
        compare=last_fetch is not None,
        into_project=into_project,
        search_outside=search_outside,
        known={text(entry.path): text(push_record.mark(entry)) for entry in known},
    )
    here: list[Entry] = []
    hashes, digest = b"", ""
    if last_fetch is not None:
        here = last_fetch()
        if here:
            hashes, digest = manifest_exchange.bucket_hashes(here, times=True)
        channel.send(b"D", hashes)
    entries, result = _receive(channel, roots, here, hashes)
    if result.unreadable:
        names = [show(path) for path in result.unreadable]
        raise OutputsHeld(f"not readable on the box: {formatting.first_names(names)}")
    excluded, in_repositories = _excluded(
        entries, into, with_repositories=with_repositories
    )
    entries = without(entries, [*excluded, *(entry.path for entry in in_repositories)])
    nowhere = frozenset(result.nowhere)
    dangling = (
        [p for p in find_links_leading_out(entries) if p in nowhere] if nowhere else []
    )
    entries = without(entries, dangling)
    # Set-user-id and similar bits are dropped, because a job on the box must not give
    # programs more rights here.
    if any(e.mode & 0o7000 for e in entries):
        entries = [e._replace(mode=e.mode & 0o777) for e in entries]
    changes_outside = None
    if result.changed_outside:
        changes_outside = ChangesOutside(
            result.changed_outside,
            [*result.changed_outside_names],
            without_outputs=not result.outputs_changed,
        )
    return RemoteManifest(
        entries,
        missing=[*result.missing],
        skipped=[*result.special, *excluded],
        unstable=[*result.unstable],
        here=here,
        same=bool(hashes) and not result.buckets,
        digest=digest if entries is here else "",
        repositories=in_repositories,
        dangling=dangling,
        changes_outside=changes_outside,
    )


def without(entries: list[Entry], paths: Iterable[bytes]) -> list[Entry]:
    """Return the entries that are at none of these paths."""
    removed = frozenset(paths)
    return [e for e in entries if e.path not in removed] if removed else entries


def _receive(
    channel: AgentChannel, roots: Sequence[str], here: list[Entry], hashes: bytes
) -> tuple[list[Entry], ScanResult]:
    """
    Receive the manifest and the box's answer.

    If the box finds that all bucket hashes of *here* equal its own, the returned
    manifest is *here* itself.
    """
    frames = channel.frames()
    try:
        rows = manifest_exchange.receive_rows(lambda: next(frames))
        entries = [manifest_exchange.unpack_entry(row) for row in rows]
        count = len(hashes) // manifest_exchange.BUCKET_HASH
        kind, payload = next(frames)
        if kind != b"A":
            raise Hostile(f"unexpected frame {kind!r} after the list of files")
        result = ScanResult.parse(protocol.loads(payload), frozenset(roots), count)
        if hashes and not result.buckets:
            return here, result
        if hashes:
            entries = manifest_exchange.merged(here, entries, result.buckets, hashes)
        manifest.check(entries, [root_path(root) for root in roots])
    except Hostile as error:
        raise OutputsHeld(f"invalid outputs from the box: {error}") from error
    except AgentError as error:
        raise OutputsHeld(f"the box cannot send its outputs: {error}") from error
    return entries, result


def _excluded(
    entries: list[Entry], into: bytes, *, with_repositories: bool
) -> tuple[list[bytes], list[Entry]]:
    """
    Return the paths that can be no outputs, and the entries that lie in repositories.

    If *with_repositories* is set, the second list is empty.
    """
    excluded: list[bytes] = []
    in_repositories: list[Entry] = []
    find_repository = repositories(
        (entry.path for entry in entries),
        lambda path: os.path.lexists(into + b"/" + path),
    )
    for entry in entries:
        top = entry.path.split(b"/", 1)[0]
        # A repository folder at the top is never an output, because it belongs to the
        # project itself.
        if top.lower() in NOT_OUTPUTS or repository_of(top) is not None:
            excluded.append(entry.path)
        elif not with_repositories and find_repository(entry.path) is not None:
            in_repositories.append(entry)
    return excluded, in_repositories
