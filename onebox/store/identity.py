"""
Identify this user and each project, and record the providers that were used.

The id of a project is derived from the path of its folder. The id stays the same when
the folder is renamed, but a copy of the folder gets another id. For this purpose, two
files record the id when the first box is created:

- The file in the project folder holds the id and the path. It moves with the folder.
  If it is lost, the id is derived from the path again.
- The file in the state directory holds the path for this id. It shows that a new
  project in the old place needs another id. If it is lost, the new project may get the
  same id.
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
    read_regular,
    sync_dir,
    write_atomically,
)

# The characters of lower-case base32, which every cloud allows in names.
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
    # The recorded id is used unless this folder is a copy. If it is, the folder at the
    # recorded path, which is the original, still holds the same id.
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
        # This id belongs to a project that was moved from here to another folder.
        salt += 1


def note_project(root: Path, project: str, state: Path) -> None:
    """Record a project's id in its folder, and the folder in the state directory."""
    folder = root.resolve()
    if (
        _read_mark(folder) == (project, folder)
        and _recorded_folder(project, state) == folder
    ):
        return
    mark = json.dumps({"project": project, "path": str(folder)}).encode()
    # An error is ignored, because without these files the id is lost only when the
    # folder is renamed.
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
    """Return the names of the providers at which this user ever created a box."""
    return sorted(mark.name for mark in (directory / "providers").glob("[a-z]*"))


def _create_owner(path: Path) -> str:
    private_dir(path.parent)
    # Two processes that start at the same time must get the same id. So the file gets
    # its name by link(), which fails for all but the first.
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
    """
    Return the project id and the path that the file in a project folder records.

    If there is no valid file, the result is "" and the folder itself.
    """
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        mark = json.loads(read_regular(folder / PROJECT_FILE))
        return str(mark["project"]), Path(mark["path"])
    return "", folder


def _recorded_folder(project: str, state: Path) -> Path | None:
    """Return the folder that the state directory records for a project id, or None."""
    with contextlib.suppress(OSError, ValueError):
        return Path((state / "roots" / project).read_bytes().decode("utf-8"))
    return None
