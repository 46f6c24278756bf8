"""Select the files of the project that are pushed to the box."""

from __future__ import annotations

import os
import posixpath
import re
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
from onebox.providers import PROVIDERS
from onebox.transfer import git, never_pushed
from onebox.transfer.backups import backups_of
from onebox.transfer.gitignore import tracked_without_git

OWN = b".onebox"
# The receipt is written beside the outputs. It is not pushed, because on the box it
# would count as an output of the job.
RECEIPT = "onebox-receipt.json"
ALL_READ = stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH
# Files and folders in which programs keep keys, tokens and passwords. They match in
# every folder, not only in a home folder.
_CREDENTIAL_PATHS = (
    *(
        posixpath.dirname(path)
        for row in PROVIDERS.values()
        for path in row.credentials
    ),
    *(".ssh", ".azure", ".gnupg", ".kube", ".oci", ".password-store"),
    *(".kaggle", ".config/gh", ".config/onebox", ".config/op", ".config/rclone"),
    ".local/share/keyrings",
    *(".netrc", "_netrc", ".pgpass", ".my.cnf", ".git-credentials", ".pypirc"),
    *(".s3cfg", ".boto", ".databrickscfg", ".dockercfg", ".docker/config.json"),
    *(".vault-token", ".terraform.d/credentials.tfrc.json", "credentials.tfrc.json"),
    *(".cargo/credentials", ".cargo/credentials.toml", ".gem/credentials"),
    *("application_default_credentials.json", "kaggle.json", "rclone.conf"),
    *(".cache/huggingface/token", ".huggingface/token", ".snowsql/config"),
    *("id_rsa", "id_dsa", "id_ecdsa", "id_ed25519", "id_ecdsa_sk", "id_ed25519_sk"),
)
_CREDENTIALS = re.compile(
    b"(?:^|/)(?:%s)(?=/|$)"
    % b"|".join(re.escape(os.fsencode(path)) for path in _CREDENTIAL_PATHS),
    re.IGNORECASE,
)


@dataclass(frozen=True)
class LeftOut:
    """
    A local output, its backup or a cache, of which at least one file is not pushed.

    *path* is the output, with a slash at the end if it is a folder. For caches it is
    the name of their folders (see `never_pushed`). *files* is the number of files that
    are not pushed.
    """

    path: bytes
    files: int


@dataclass(frozen=True)
class Selection:
    """
    The selected entries, sorted by path, with warnings for the user.

    Folders are selected only at and below the *data* paths of `select`. The entry of a
    file has a hash only if the index had it. *left_out* lists the local outputs that
    are not pushed, or not completely, and *caches* the environments and caches.
    """

    entries: list[Entry]
    warnings: list[str]
    left_out: list[LeftOut] = field(default_factory=list)
    caches: list[LeftOut] = field(default_factory=list)

    @property
    def paths(self) -> list[bytes]:
        """Return the paths, relative to the root."""
        return [entry.path for entry in self.entries]


def select(
    root: Path,
    code: Sequence[str],
    data: Sequence[str],
    outputs: Sequence[str],
    index: Index | None = None,
) -> Selection:
    """
    Select the files, links and data folders to push.

    Files that hold credentials are left out, unless *code* or *data* names them.

    Args:
        code: At and below these paths, everything that git would track is selected,
            except for untracked environments and caches (see `never_pushed`).

        data: At and below these paths, everything is selected.

        outputs: Files at and below these paths, and the backups that a fetch keeps of
            them, are not selected as code. Exceptions are files that git tracks, and
            files below a *code* path that is itself in the output.

        index: The index in which hashes are looked up.

    Raises:
        InputError: A configured path is missing or leads out of *root*, or files cannot
            be read. The error names the path, or the first few of the files.
    """
    base = os.fsencode(root)
    paths: set[bytes] = set()
    tops = [_top(root, name) for name in code]
    results = [_inside(name) for name in outputs]
    caches: dict[bytes, set[bytes]] = {}
    backups: dict[bytes, set[bytes]] = {}
    if tops:
        code_paths, caches, backups = _code(base, tops, results)
        paths.update(code_paths)
    for name in data:
        paths.update(_data(base, _top(root, name)))
        tops.append(_inside(name))
    # The receipts of earlier runs are not pushed (see `RECEIPT`).
    paths.difference_update(output + b"/" + RECEIPT.encode() for output in results)
    allowed, credentials = _without_credentials(paths, tops)
    scanned = manifest.scan(base, allowed, index or Index(), hashing=False)
    selection = _checked(base, scanned)
    if credentials:
        names = formatting.first_names([show(path) for path in credentials], 5)
        selection.warnings.append(
            f"not pushed, because they hold credentials: {names} (to push one, name "
            "it in [push] data)"
        )
    selection.left_out.extend(_left_out(base, results, set(selection.paths)))
    for path, files in sorted(backups.items()):
        if files - paths:
            folder = os.path.isdir(os.path.join(base, path))
            selection.left_out.append(LeftOut(path + b"/" * folder, len(files - paths)))
    for path, files in sorted(caches.items()):
        if files - paths:
            selection.caches.append(LeftOut(path + b"/", len(files - paths)))
    return selection


def _code(
    base: bytes, tops: list[bytes], outputs: list[bytes]
) -> tuple[set[bytes], dict[bytes, set[bytes]], dict[bytes, set[bytes]]]:
    """
    Return the files below *tops* that git tracks or that `git add` would add.

    Outputs, their backups and caches that git does not track are left out. The second
    result has the files in the caches; see `never_pushed.separate`. The third has those
    in each backup.
    """
    backup = backups_of(outputs)

    def above(path: bytes) -> list[bytes]:
        """Return the outputs and backups that *path* is in."""
        found = backup.match(path)
        places = [output for output in outputs if _below(path, output)]
        return [*places, found[0]] if found else places

    def is_output(path: bytes) -> bool:
        return any(
            not any(_below(top, output) and _below(path, top) for top in tops)
            for output in above(path)
        )

    # Git must not enter repositories in outputs: a job may have configured them to
    # run programs.
    listed = git.list_files(base, tops, lambda path: bool(above(path)))
    if listed is None:
        tracked, others = set[bytes](), tracked_without_git(base, tops)
    else:
        tracked, others, skipped = listed
        as_code = [folder for folder in sorted(skipped) if not is_output(folder)]
        others.update(tracked_without_git(base, as_code))
    code = {path for path in others if not is_output(path)}
    backups: dict[bytes, set[bytes]] = {}
    for path in others - code:
        if found := backup.match(path):
            backups.setdefault(found[0], set()).add(path)
    code, caches = never_pushed.separate(code, tops)
    return tracked | code, caches, backups


def _without_credentials(
    paths: set[bytes], named: list[bytes]
) -> tuple[list[bytes], list[bytes]]:
    """
    Return the paths that may be pushed, and the credentials that are left out.

    Credentials are files or folders. *named* are the paths that the user has
    configured. Such a path can be a credential file or folder, or lie in a credential
    folder. Then everything at and below that path may be pushed.
    """
    allowed_tops = [top for top in named if _credentials_in(top)]
    allowed: list[bytes] = []
    credentials: set[bytes] = set()
    for path in paths:
        if _below(path, OWN):
            continue
        secret = _credentials_in(path)
        if secret is None or any(_below(path, top) for top in allowed_tops):
            allowed.append(path)
        else:
            credentials.add(secret)
    return allowed, sorted(credentials)


def _credentials_in(path: bytes) -> bytes | None:
    """
    Return the credential file or folder at or above a path.

    Return None if there is none.
    """
    match = _CREDENTIALS.search(path)
    return path[: match.end()] if match else None


def _left_out(
    base: bytes, outputs: list[bytes], selected: set[bytes]
) -> Iterator[LeftOut]:
    """
    Yield each local output of which at least one file is not selected.

    A file that lies in several outputs is counted only for the first of them.
    """
    seen: set[bytes] = set()
    for output in outputs:
        count = 0
        for path in _files(base, output):
            if path not in selected and path not in seen:
                seen.add(path)
                count += 1
        if count:
            folder = os.path.isdir(os.path.join(base, output))
            yield LeftOut(output + b"/" * folder, count)


def _files(base: bytes, top: bytes) -> list[bytes]:
    """Return the files and links at and below *top*, but not in unreadable folders."""
    with suppress(OSError):
        walked = manifest.walk(base, top, unreadable=[])
        return [path for path in walked.paths if path not in walked.folders]
    return []


def _data(base: bytes, top: bytes) -> list[bytes]:
    try:
        return manifest.below(base, top)
    except OSError as error:
        name = os.fsencode(error.filename) if error.filename else top
        raise InputError(f"cannot be read: {show(name)}") from error


def _checked(base: bytes, scanned: manifest.Scan) -> Selection:
    """
    Return the scanned entries as a selection with warnings.

    Raises:
        InputError: Files cannot be read.
    """
    prefix = os.path.join(base, b"")
    unreadable = scanned.unreadable
    warnings = [
        f"{show(path)} is no file, so it is not pushed" for path in scanned.special
    ]
    for entry in scanned.entries:
        if entry.kind == "l":
            if _leads_out_of_project(entry.path, entry.target):
                warnings.append(
                    f"{show(entry.path)} is a link to {show(entry.target)}, outside "
                    "the project: what it leads to is not pushed"
                )
        # Most files are readable for all users. These need no system call.
        elif entry.mode & ALL_READ != ALL_READ and not os.access(
            prefix + entry.path, os.R_OK
        ):
            unreadable.append(entry.path)
    if unreadable:
        names = [show(path) for path in sorted(unreadable)]
        raise InputError(f"cannot be read: {formatting.first_names(names, 5)}")
    return Selection(scanned.entries, warnings)


def _top(root: Path, name: str) -> bytes:
    """
    Return a configured path relative to *root*.

    Raises:
        InputError: The path is missing, or it leads out of the project.
    """
    top = _inside(name)
    if not os.path.lexists(os.path.join(os.fsencode(root), top)):
        raise InputError(f"{name} is not there, in {root}")
    return top


def _inside(name: str) -> bytes:
    """
    Return a configured path without empty and "." parts.

    Raises:
        InputError: The path leads out of the project.
    """
    parts = os.fsencode(name).split(b"/")
    if name.startswith("/") or b".." in parts or "\0" in name:
        raise InputError(f"{name} is no path inside the project")
    return b"/".join(part for part in parts if part not in (b"", b"."))


def _below(path: bytes, top: bytes) -> bool:
    return not top or path == top or path.startswith(top + b"/")


def _leads_out_of_project(path: bytes, target: bytes) -> bool:
    """Return whether a link from *path* to *target* leads out of the project."""
    place = os.path.normpath(os.path.join(os.path.dirname(path), target))
    return place.startswith((b"/", b"../")) or place == b".."
