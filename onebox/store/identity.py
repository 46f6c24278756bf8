"""
Identify this user and each project, and record the providers that were used.

The id of a project is derived from the path of its folder. The id stays the same when
the folder is renamed, but a copy of the folder gets another id. For this purpose, two
files record the id when the first box is created:

- The file in the project folder holds the id and the path. It moves with the folder.
  If it is lost, the id is derived from the path again. The file of a cloned project may
  hold any text, so it counts only if the state directory agrees.
- The file in the state directory holds the path for this id. It shows that a new
  project in the old place needs another id, and that a folder with the id was moved
  here. If it is lost, the id is derived from the path again.
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
from onebox.file_owners import is_foreign, read_own
from onebox.store.atomic_files import (
    clear_drafts,
    disk_errors,
    foreign_error,
    open_folder,
    private_dir,
    refuse_foreign,
    sync_dir,
    write_atomically,
    write_in,
)

# The characters of lower-case base32, which every cloud allows in names.
ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
OWNER_LENGTH = 12
PROJECT_FILE = ".onebox/project.json"
# The form of the ids that `_derived_id` returns.
_ID = re.compile(r"[a-z][a-z0-9-]{0,23}-[0-9a-f]{6}")
# The longest path has 4096 bytes, of which JSON writes each as 6 at most.
_MOST_BYTES = 1 << 15


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

    This function writes nothing; `follow_move` records that a folder was moved.
    """
    folder = root.resolve()
    recorded = _recorded_id(folder)
    holder = _recorded_folder(recorded, state) if recorded else None
    # If the folder of the state directory still holds the id, this folder is a copy.
    if holder == folder or (holder and not _holds(holder, recorded)):
        return recorded
    salt = 0
    while True:
        candidate = _derived_id(folder, name, salt)
        holder = _recorded_folder(candidate, state)
        if holder in (None, folder) or not _holds(holder, candidate):
            return candidate
        # This id belongs to a project that was moved from here to another folder.
        salt += 1


def refuse_unreadable(root: Path) -> None:
    """
    Raise StateError if the file that records a project's id here cannot be trusted.

    Without it another id would be derived, and the boxes of the project not be found.
    """
    file = root.resolve() / PROJECT_FILE
    if _is_unreadable(file.parent.parent):
        raise foreign_error(file, file.parent, "so the id in it is not used")


def follow_move(root: Path, project: str, state: Path) -> None:
    """Record the new place of a project whose folder was moved with its id."""
    if _recorded_id(root.resolve()) == project:
        note_project(root, project, state)


def note_project(root: Path, project: str, state: Path) -> None:
    """
    Record a project's id in its folder, and the folder in the state directory.

    Raises:
        StateError: The folder `.onebox` is a link, which may lead to any place, or it
            belongs to another user.
    """
    folder = root.resolve()
    if _recorded_id(folder) == project and _recorded_folder(project, state) == folder:
        return
    mark = json.dumps({"project": project, "path": str(folder)}).encode()
    file = folder / PROJECT_FILE
    refuse_foreign(file.parent)
    # An error is ignored, because without these files the id is lost only when the
    # folder is renamed.
    with contextlib.suppress(OSError):
        with open_folder(file.parent) as inside:
            write_in(inside, file.name, mark)
        private_dir(state / "roots")
        write_atomically(state / "roots" / project, os.fsencode(folder))


def other_holder(project: str, root: Path, state: Path) -> Path | None:
    """Return the folder that has *project* as its derived id, unless it is *root*."""
    holder = _recorded_folder(project, state) if _ID.fullmatch(project) else None
    if holder in (None, root.resolve()) or not _holds(holder, project):
        return None
    return holder


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


def _recorded_id(folder: Path) -> str:
    """Return the project id that the file in a project folder records, or ""."""
    with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
        found = json.loads(read_own(folder / PROJECT_FILE, _MOST_BYTES) or b"")
        if _ID.fullmatch(found["project"]):
            return str(found["project"])
    return ""


def _holds(folder: Path, project: str) -> bool:
    """Return whether a folder records a project id, or may record it."""
    return _recorded_id(folder) == project or _is_unreadable(folder)


def _is_unreadable(folder: Path) -> bool:
    """Return whether a project's file with its id exists, but is of another user."""
    file = folder / PROJECT_FILE
    try:
        file.lstat()
        return is_foreign(file) or not (file.is_symlink() or os.access(file, os.R_OK))
    except PermissionError:
        return True
    except (OSError, ValueError):
        return False


def _recorded_folder(project: str, state: Path) -> Path | None:
    """Return the folder that the state directory records for a project id, or None."""
    path = read_own(state / "roots" / project, _MOST_BYTES)
    return Path(os.fsdecode(path)) if path else None
