"""The owner id of this user on this machine, and the providers that were used."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import tempfile
from pathlib import Path

from onebox.errors import StateError
from onebox.store.atomic_files import (
    clear_drafts,
    disk_errors,
    private_dir,
    sync_dir,
    write_atomically,
)

# Lower-case base32: legal in the names of every cloud.
ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
OWNER_LENGTH = 12


def owner(directory: Path) -> str:
    """
    Return the random id of this user on this machine; create it at the first call.

    Raises:
        StateError: The file is damaged, or cannot be read or written.
    """
    path = directory / "owner"
    with disk_errors(path):
        try:
            owner_id = path.read_text("ascii", errors="replace").strip()
        except FileNotFoundError:
            return _create_owner(path)
    if not re.fullmatch(f"[a-z2-7]{{{OWNER_LENGTH}}}", owner_id):
        raise StateError(
            f"{path} does not hold an owner id",
            next=f"restore it, or remove it to become a new owner: rm {path}",
        )
    return owner_id


def _create_owner(path: Path) -> str:
    private_dir(path.parent)
    # Two processes that start at the same time must get the same id: link() fails
    # for all but the first.
    with tempfile.NamedTemporaryFile("w", prefix=".draft-", dir=path.parent) as draft:
        draft.write(random_id(OWNER_LENGTH) + "\n")
        draft.flush()
        os.fsync(draft.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft.name, path)
    sync_dir(path.parent)
    return path.read_text("ascii").strip()


def random_id(length: int = 10) -> str:
    """Return *length* random characters of lower-case base32."""
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def note_provider(directory: Path, name: str) -> None:
    """Record in the state directory that boxes were created at this provider."""
    mark = directory / "providers" / name
    clear_drafts(mark.parent, ".*-*")
    if not mark.exists():
        with disk_errors(mark):
            private_dir(mark.parent)
            write_atomically(mark, b"")


def providers_used(directory: Path) -> list[str]:
    """Return the providers at which this user ever created a box."""
    return sorted(mark.name for mark in (directory / "providers").glob("[a-z]*"))
