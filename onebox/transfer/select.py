"""Which files of the project belong on the box."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from onebox import formatting
from onebox.agent.file_names import show
from onebox.agent.files import manifest
from onebox.agent.files.hash_index import Index
from onebox.agent.files.manifest import Entry
from onebox.errors import InputError
from onebox.store import private_paths
from onebox.transfer import git
from onebox.transfer.gitignore import tracked_without_git
from onebox.transfer.progress import listing

OWN = b".onebox"
# What a run writes beside its outputs: on a box it would be an output of the job's.
RECEIPT = "onebox-receipt.json"
ALL_READ = stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH


@dataclass(frozen=True)
class LeftOut:
    """An output folder or file of which *files* are here and are not pushed."""

    path: bytes
    files: int


@dataclass(frozen=True)
class Selection:
    """
    What belongs on the box, sorted by path, and what the user should know of it.

    Folders are among it only where they lie below `data`. A file's hash is there
    only if it was known. *left_out* are the outputs that are here and stay here.
    """

    entries: list[Entry]
    warnings: list[str]
    left_out: list[LeftOut] = field(default_factory=list)

    @property
    def paths(self) -> list[bytes]:
        """Return the paths, relative to the root."""
        return [entry.path for entry in self.entries]


def select(
    root: Path,
    code: Sequence[str],
    data: Sequence[str],
    outputs: Sequence[str],
    known: Index | None = None,
) -> Selection:
    """
    Choose the files, links and data folders that a push brings to the box.

    Credentials are left out, unless *code* or *data* names them.

    Args:
        code: Of these paths, what git would track.

        data: These paths, with all that is below them.

        outputs: What lies below these is no code, unless git tracks it or *code*
            names it.

        known: Where hashes are known from.

    Raises:
        InputError: A path is not there or leads out of *root*, or some files
            cannot be read; all of them are named before anything is sent.
    """
    base = os.fsencode(root)
    chosen: set[bytes] = set()
    tops = [_top(root, name) for name in code]
    results = [_inside(name) for name in outputs]
    if tops:
        chosen.update(_code(base, tops, results))
    for name in data:
        chosen.update(_data(base, _top(root, name)))
        tops.append(_inside(name))
    chosen.difference_update(_receipts(results))
    paths, credentials = _without_credentials(chosen, tops)
    found = manifest.scan(base, paths, known or Index(), hashing=False)
    selection = _checked(base, found)
    if credentials:
        names = formatting.some([show(path) for path in credentials], 5)
        selection.warnings.append(
            f"not pushed, because they hold credentials: {names} (to push one, name "
            "it in [push] data)"
        )
    selection.left_out.extend(_left_out(base, results, set(selection.paths)))
    return selection


def _code(base: bytes, tops: list[bytes], outputs: list[bytes]) -> set[bytes]:
    def is_output(path: bytes) -> bool:
        return any(
            _below(path, output)
            and not any(_below(top, output) and _below(path, top) for top in tops)
            for output in outputs
        )

    # A job could have configured a repository there to run what it likes.
    def is_below_output(path: bytes) -> bool:
        return any(_below(path, output) for output in outputs)

    listed = git.list_files(base, tops, is_below_output)
    if listed is None:
        return {path for path in tracked_without_git(base, tops) if not is_output(path)}
    tracked, others, skipped = listed
    named = [folder for folder in sorted(skipped) if not is_output(folder)]
    others.update(tracked_without_git(base, named))
    return tracked.union(path for path in others if not is_output(path))


def _receipts(outputs: list[bytes]) -> set[bytes]:
    """Return where the receipts of earlier runs are."""
    return {output + b"/" + RECEIPT.encode() for output in outputs}


def _without_credentials(
    paths: set[bytes], named: list[bytes]
) -> tuple[list[bytes], list[bytes]]:
    """Return the paths that may leave this machine, and what holds credentials."""
    meant = [top for top in named if private_paths.credentials_in(top) is not None]
    kept: list[bytes] = []
    credentials: set[bytes] = set()
    for path in paths:
        if _below(path, OWN):
            continue
        secret = private_paths.credentials_in(path)
        if secret is None or any(_below(path, top) for top in meant):
            kept.append(path)
        else:
            credentials.add(secret)
    return kept, sorted(credentials)


def _left_out(
    base: bytes, outputs: list[bytes], chosen: set[bytes]
) -> Iterator[LeftOut]:
    seen: set[bytes] = set()
    for output in outputs:
        count = 0
        for path in _files(base, output):
            if path not in chosen and path not in seen:
                seen.add(path)
                count += 1
        if count:
            folder = os.path.isdir(os.path.join(base, output))
            yield LeftOut(output + b"/" * folder, count)


def _files(base: bytes, top: bytes) -> Iterator[bytes]:
    """Yield what is no folder at or below a path; what cannot be read is skipped."""
    full = os.path.join(base, top)
    if os.path.islink(full) or not os.path.isdir(full):
        if os.path.lexists(full):
            yield top
        return
    folders = [top]
    while folders:
        folder = folders.pop()
        with suppress(OSError), os.scandir(os.path.join(base, folder)) as items:
            for item in items:
                path = folder + b"/" + item.name
                if item.is_dir(follow_symlinks=False):
                    folders.append(path)
                else:
                    yield path


def _data(base: bytes, top: bytes) -> list[bytes]:
    try:
        return manifest.below(base, top)
    except OSError as error:
        name = os.fsencode(error.filename) if error.filename else top
        raise InputError(f"cannot be read: {show(name)}") from error


def _checked(base: bytes, found: manifest.Scan) -> Selection:
    prefix = os.path.join(base, b"")
    closed = found.unreadable
    warnings = [f"{show(path)} is no file, so it stays here" for path in found.special]
    for entry in found.entries:
        if entry.kind == "l":
            if _leaves(entry.path, entry.target):
                there = "is a link that leads out of the project"
                warnings.append(f"{show(entry.path)} {there}")
        # For the owner it is the owner's bit that counts, and nothing else.
        elif entry.mode & ALL_READ != ALL_READ and not os.access(
            prefix + entry.path, os.R_OK
        ):
            closed.append(entry.path)
    if closed:
        names = [show(path) for path in sorted(closed)]
        count = f" ({len(names)} in all)" if len(names) > 5 else ""
        raise InputError(f"cannot be read: {listing(names, 5)}{count}")
    return Selection(found.entries, warnings)


def _top(root: Path, name: str) -> bytes:
    top = _inside(name)
    if not os.path.lexists(os.path.join(os.fsencode(root), top)):
        raise InputError(f"{name} is not there, in {root}")
    return top


def _inside(name: str) -> bytes:
    parts = os.fsencode(name).split(b"/")
    if name.startswith("/") or b".." in parts or "\0" in name:
        raise InputError(f"{name} is no path inside the project")
    return b"/".join(part for part in parts if part not in (b"", b"."))


def _below(path: bytes, top: bytes) -> bool:
    return not top or path == top or path.startswith(top + b"/")


def _leaves(path: bytes, target: bytes) -> bool:
    above = os.path.normpath(os.path.join(os.path.dirname(path), target))
    return above.startswith((b"/", b"../")) or above == b".."
