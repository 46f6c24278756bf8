"""Ask the box what outputs it has, and take nothing for granted in what it says."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from onebox.agent import protocol
from onebox.agent.file_names import Hostile, raw, show
from onebox.agent.files import manifest, manifest_buckets, row_codec
from onebox.agent.files.manifest import Entry
from onebox.errors import OutputsHeld
from onebox.remote.answers import ScanResult
from onebox.remote.channel import AgentChannel, AgentError
from onebox.repositories import repositories, repository_of
from onebox.transfer.install import leads_out
from onebox.transfer.progress import listing

# Where contents wait below the project, if its own state is on another disk.
STAGING = ".onebox-incoming"
# What no output may touch, whatever the box says.
NOT_OUTPUTS = (b".onebox", STAGING.encode())


@dataclass(frozen=True)
class Left:
    """
    The files outside of the outputs that are new or changed since the push.

    *names* are the first few of *count*. *alone* means that the outputs hold nothing
    that is new or changed.
    """

    count: int
    names: list[bytes]
    alone: bool


@dataclass(frozen=True)
class Found:
    """
    What the box has: all its *entries*, checked.

    *missing* roots are not there, *skipped* are no files or not for us, *unstable*
    files did not hold still. *repositories* is what was left out because it lies
    in a `.git` folder or its like. *dangling* are links that lead out of the outputs
    to no file or folder; they are not among the entries. *here* is what was found here
    of the last fetch; *same* means that nothing has changed since; *digest* is of all
    entries then, if it is known. *left* is None if there was no reason to look for it.
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
    left: Left | None = None


def ask(
    channel: AgentChannel,
    roots: Sequence[str],
    *,
    hashing: bool,
    beside: bool = False,
    beyond: str = "",
    mine: Callable[[], list[Entry]] | None = None,
    repositories: bool = False,
    into: bytes = b"",
) -> Found:
    """
    Return the box's manifest, once it is known to harm nobody.

    Args:
        beside: The project's own files are where the outputs are brought, so that
            links to them need not bring what they lead to.

        beyond: Look for files outside of the outputs "always", or "if-empty": if the
            outputs hold nothing new.

        mine: Finds out what it is if nothing has changed since the last time,
            while the box looks, and spares it from sending that again.

        repositories: Take what lies in a `.git` folder or its like, too.

        into: The folder that the outputs are brought into.
    """
    channel.begin(
        "scan",
        roots=list(roots),
        hashing=hashing,
        unless=mine is not None,
        beside=beside,
        beyond=beyond,
    )
    here: list[Entry] = []
    hashes, digest = b"", ""
    if mine is not None:
        here = mine()
        hashes, digest = (
            manifest_buckets.hashes(here, times=True) if here else (b"", "")
        )
        channel.send(b"D", hashes)
    frames = channel.frames()
    try:
        rows = row_codec.receive_rows(lambda: next(frames))
        entries = [row_codec.unpack_entry(row) for row in rows]
        count = len(hashes) // manifest_buckets.HASH
        kind, payload = next(frames)
        if kind != b"A":
            raise Hostile(f"a {kind!r} frame after its list of files")
        told = ScanResult.parse(protocol.loads(payload), frozenset(roots), count)
        same = bool(hashes) and not told.parts
        if same:
            entries = here
        else:
            if hashes:
                entries = manifest_buckets.merged(here, entries, told.parts, hashes)
            manifest.check(entries, [_top(root) for root in roots])
    except Hostile as error:
        raise OutputsHeld(f"the box sent what cannot be taken: {error}") from error
    except AgentError as error:
        raise OutputsHeld(f"the box cannot send its outputs: {error}") from error
    if told.unreadable:
        raise OutputsHeld(
            "not readable on the box: " + listing([show(p) for p in told.unreadable])
        )
    apart, inner = _not_for_us(entries, into, take=repositories)
    entries = without(entries, [*apart, *(entry.path for entry in inner)])
    nowhere = frozenset(told.nowhere)
    dangling = [p for p in leads_out(entries) if p in nowhere] if nowhere else []
    entries = without(entries, dangling)
    # A set-user-id bit is worth nothing here, coming from a machine that runs jobs.
    if any(e.mode & 0o7000 for e in entries):
        entries = [e._replace(mode=e.mode & 0o777) for e in entries]
    if entries is not here:
        digest = ""
    special, unstable = [*told.special, *apart], [*told.unstable]
    left = Left(told.left, [*told.left_names], alone=not told.made)
    return Found(
        entries,
        [*told.missing],
        special,
        unstable,
        here,
        same,
        digest,
        inner,
        dangling,
        left if told.left else None,
    )


def without(entries: list[Entry], paths: Iterable[bytes]) -> list[Entry]:
    """Return the entries that are at none of these paths."""
    apart = frozenset(paths)
    return [e for e in entries if e.path not in apart] if apart else entries


def _not_for_us(
    entries: list[Entry], into: bytes, *, take: bool
) -> tuple[list[bytes], list[Entry]]:
    """Return the paths that are never outputs, and what lies in a repository."""
    apart: list[bytes] = []
    inner: list[Entry] = []
    holder = repositories(
        (entry.path for entry in entries),
        lambda path: os.path.lexists(into + b"/" + path),
    )
    for entry in entries:
        top = entry.path.split(b"/", 1)[0]
        # A repository at the top is the project's own.
        if top.lower() in NOT_OUTPUTS or repository_of(top) is not None:
            apart.append(entry.path)
        elif not take and holder(entry.path) is not None:
            inner.append(entry)
    return apart, inner


def _top(root: str) -> bytes:
    top = raw(root).rstrip(b"/")
    return b"" if top == b"." else top
