"""
The ids of this user and of a project, and the providers that were used.

The id of a project survives a rename of its folder, and a copy gets another one. It is
derived from the folder's path. When the first box is created, two files record it: one
in the project folder, with the id and the path, which moves with the folder; and one in
the state directory, with the path, so that a new project in the old place gets another
id. If either file is lost, the path decides.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
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
PROJECT_FILE = ".onebox/project.json"


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


def random_id(length: int = 10) -> str:
    """Return *length* random characters of lower-case base32."""
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def project_id(root: Path, name: str, state: Path) -> str:
    """
    Return the id of the project in a folder.

    Args:
        name: The project's name, which is the readable part of the id.

        state: The state directory.
    """
    folder = root.resolve()
    recorded_id, recorded_folder = _read_mark(folder)
    moved = recorded_folder != folder
    # In a copy, the original folder still holds the same id.
    if recorded_id and not (moved and _read_mark(recorded_folder)[0] == recorded_id):
        if moved:
            note_project(folder, recorded_id, state)
        return recorded_id
    salt = 0
    while True:
        candidate = _derived_id(folder, name, salt)
        holder = _recorded_folder(candidate, state)
        if holder in (None, folder) or _read_mark(holder)[0] != candidate:
            return candidate
        # The project with this id has moved from here to another folder.
        salt += 1


def note_project(root: Path, project: str, state: Path) -> None:
    """Record the id of the project in a folder, in that folder and in the state."""
    folder = root.resolve()
    if (
        _read_mark(folder) == (project, folder)
        and _recorded_folder(project, state) == folder
    ):
        return
    mark = json.dumps({"project": project, "path": str(folder)}).encode()
    # If these files cannot be written, only a rename of the folder loses the id.
    with contextlib.suppress(OSError):
        private_dir((folder / PROJECT_FILE).parent)
        write_atomically(folder / PROJECT_FILE, mark)
        private_dir(state / "roots")
        write_atomically(state / "roots" / project, str(folder).encode())


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


def _derived_id(folder: Path, name: str, salt: int) -> str:
    text = f"{folder}\0{salt}" if salt else str(folder)
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
    return f"{name[:24]}-{digest[:6]}"


def _read_mark(folder: Path) -> tuple[str, Path]:
    """Return the id and the path recorded in a folder; "" for the id without them."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        mark = json.loads((folder / PROJECT_FILE).read_bytes())
        return str(mark["project"]), Path(mark["path"])
    return "", folder


def _recorded_folder(project: str, state: Path) -> Path | None:
    """Return the folder that the state directory records for a project."""
    with contextlib.suppress(OSError, ValueError):
        return Path((state / "roots" / project).read_bytes().decode("utf-8"))
    return None
